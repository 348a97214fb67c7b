/* What follows from the arguments and the place alone. */
#include <string.h>

#include "move/move.h"
#include "move/place.h"

bool move_is_emergency(const struct move_request *a)
{
	return a->percent == 0 || strcmp(a->command, "rollback") == 0 || strcmp(a->command, "disable") == 0;
}

enum flag_rules place_rules(const struct rollout_place *p)
{
	if (p->flipt && p->server.known)
		return flag_rules_of_server(p->server.major, p->server.minor);
	if (p->flipt && p->version == 1)
		return FLAG_RULES_V1;
	return p->flipt && p->config->flags.rules == FLAG_RULES_V1 ? FLAG_RULES_V2 : p->config->flags.rules;
}
