typedef int legacy_is_to_come;
