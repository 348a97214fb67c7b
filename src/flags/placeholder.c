typedef int flags_is_to_come;
