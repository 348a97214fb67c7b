/* The sub-command as a program of its own, for tests. */
#include "base/crypto.h"
#include "programs/router/evaluate.h"

int main(int argc, char **argv)
{
	return crypto_setup() < 0 ? 1 : evaluate_command(argc, argv);
}
