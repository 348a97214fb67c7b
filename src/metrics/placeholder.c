typedef int metrics_is_to_come;
