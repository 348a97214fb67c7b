typedef int router_is_to_come;
