typedef int tasks_is_to_come;
