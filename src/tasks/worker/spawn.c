#include "tasks/worker/spawn.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define DEFAULT_PATH "/usr/local/bin:/usr/bin:/bin"

/* Where the program is, before the fork: execvp may allocate, which a child of a threaded process must
 * not. */
static int find_program(const char *name, char *const env[], char out[PATH_MAX])
{
	if (strchr(name, '/'))
		return snprintf(out, PATH_MAX, "%s", name) < PATH_MAX ? 0 : -ENAMETOOLONG;
	const char *path = DEFAULT_PATH;
	for (size_t i = 0; env[i]; i++)
		if (strncmp(env[i], "PATH=", 5) == 0)
			path = env[i] + 5;
	while (*path) {
		size_t n = strcspn(path, ":");
		if (n && snprintf(out, PATH_MAX, "%.*s/%s", (int)n, path, name) < PATH_MAX &&
		    access(out, X_OK) == 0)
			return 0;
		path += n + (path[n] == ':');
	}
	return -ENOENT;
}

/* What programs get: select() does not know descriptors above 1023, and some close all that the limit
 * allows. */
static struct rlimit spawn_descriptors;

void spawn_raise_descriptor_limit(void)
{
	struct rlimit l;
	if (getrlimit(RLIMIT_NOFILE, &l) < 0 || l.rlim_cur >= l.rlim_max)
		return;
	spawn_descriptors = l;
	l.rlim_cur = l.rlim_max;
	setrlimit(RLIMIT_NOFILE, &l);
}

/* In the child; only what POSIX allows after fork in a threaded process. `ends` are its pipes, `report`
 * where failure is told. */
static void become(const char *program, char *const argv[], char *const env[], const int ends[3], int report,
		   pid_t parent)
{
	struct sigaction standard = {.sa_handler = SIG_DFL};
	sigset_t none;
	for (int n = 1; n < NSIG; n++)
		sigaction(n, &standard, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0);
	if (spawn_descriptors.rlim_max)
		setrlimit(RLIMIT_NOFILE, &spawn_descriptors);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127); /* it died before it could matter to the kernel */
	if (chdir("/") == 0 && dup2(ends[0], 0) == 0 && dup2(ends[1], 1) == 1 && dup2(ends[2], 2) == 2) {
		/* Nothing above the three is inherited; `report` closes itself at exec. */
		syscall(SYS_close_range, 3u, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */);
		execve(program, argv, env);
	}
	int code = errno;
	ssize_t ignored = write(report, &code, sizeof(code));
	(void)ignored;
	_exit(127);
}

static void close_all(int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* What the child told before it became the program: 0, or why it could not. */
static int read_report(int fd)
{
	int code = 0;
	ssize_t n;
	do
		n = read(fd, &code, sizeof(code));
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof(code) ? -code : 0;
}

/* Pipes must not come to lie on 0-2 in case the worker was started without them. */
static int make_pipe(int ends[2])
{
	int low[2];
	if (pipe2(low, O_CLOEXEC) < 0)
		return -errno;
	for (int i = 0; i < 2; i++) {
		ends[i] = low[i] > 2 ? low[i] : fcntl(low[i], F_DUPFD_CLOEXEC, 3);
		if (low[i] <= 2)
			close(low[i]);
	}
	return ends[0] < 0 || ends[1] < 0 ? -EMFILE : 0;
}

int spawn(char *const argv[], char *const env[], int input, struct spawned *ret, struct err *e)
{
	char program[PATH_MAX];
	int p[8]; /* stdin, stdout, stderr, report; read and write end each */
	memset(p, -1, sizeof(p));
	int r = find_program(argv[0], env, program);
	if (r == 0 && input >= 0 && (p[0] = fcntl(input, F_DUPFD_CLOEXEC, 3)) < 0)
		r = -errno;
	for (int i = input >= 0; r == 0 && i < 4; i++)
		r = make_pipe(&p[2 * i]);
	if (r < 0) {
		close_all(p, 8);
		return err_set(e, r, "%s: %s", argv[0], strerror(-r));
	}
	pid_t parent = getpid(), pid = fork();
	if (pid == 0)
		become(program, argv, env, (int[]){p[0], p[3], p[5]}, p[7], parent);
	r = pid < 0 ? -errno : 0;
	close_all((int[]){p[0], p[3], p[5], p[7]}, 4);
	if (r == 0)
		r = read_report(p[6]);
	close(p[6]);
	struct spawned s = {.pid = pid, .in = p[1], .out = p[2], .err = p[4], .pidfd = -1};
	if (r == 0) {
		s.pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
		if (s.pidfd < 0)
			r = -errno;
	}
	if (r < 0) {
		close_all((int[]){s.in, s.out, s.err}, 3);
		if (pid > 0) {
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
		}
		return err_set(e, r, "%s: %s", argv[0], strerror(-r));
	}
	if (s.in >= 0)
		fcntl(s.in, F_SETFL, O_NONBLOCK);
	fcntl(s.out, F_SETFL, O_NONBLOCK);
	fcntl(s.err, F_SETFL, O_NONBLOCK);
	*ret = s;
	return 0;
}

/* --- the end -------------------------------------------------------------------------------------------- */

#define DESCENDANTS_MAX 65536 /* processes of the machine that are checked */
#define KILL_ROUNDS 8

struct spawn_process {
	pid_t pid, parent;
	bool descends;
};

static pid_t parent_of(pid_t pid)
{
	char path[64], line[512];
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
	if (n <= 0)
		return 0;
	line[n] = '\0';
	const char *name_end = strrchr(line, ')'); /* the name may hold anything */
	return name_end && strlen(name_end) > 4 ? (pid_t)strtol(name_end + 4, NULL, 10) : 0;
}

static size_t list_processes(struct spawn_process *all)
{
	size_t n = 0;
	DIR *folder = opendir("/proc");
	for (const struct dirent *d = folder ? readdir(folder) : NULL; d && n < DESCENDANTS_MAX;
	     d = readdir(folder)) {
		char *end;
		long pid = strtol(d->d_name, &end, 10);
		if (pid <= 0 || *end)
			continue;
		all[n].pid = (pid_t)pid;
		all[n].parent = parent_of((pid_t)pid);
		all[n++].descends = false;
	}
	if (folder)
		closedir(folder);
	return n;
}

static bool descends(const struct spawn_process *all, size_t n, pid_t parent, pid_t root)
{
	if (parent == root)
		return true;
	for (size_t i = 0; i < n; i++)
		if (all[i].descends && all[i].pid == parent)
			return true;
	return false;
}

/* Sends it to all that descend from `root`; how many these are. */
static unsigned signal_descendants(struct spawn_process *all, pid_t root, int number)
{
	size_t n = list_processes(all);
	unsigned found = 0;
	for (bool more = true; more;) {
		more = false;
		for (size_t i = 0; i < n; i++) {
			if (all[i].descends || !descends(all, n, all[i].parent, root))
				continue;
			all[i].descends = more = true;
			found++;
			kill(all[i].pid, number);
		}
	}
	return found;
}

/*
 * The group, and what has left it for a session of its own but still descends from the leader. Stopped first,
 * so that none can fork or lose its parent while the others are looked for. A daemon whose parent has ended
 * before belongs to nobody any more.
 */
void spawned_kill(const struct spawned *s)
{
	CLEANUP(freep) struct spawn_process *all = malloc(DESCENDANTS_MAX * sizeof(*all));
	if (all) {
		kill(-s->pid, SIGSTOP);
		unsigned before = 0, now = signal_descendants(all, s->pid, SIGSTOP);
		for (int i = 0; i < KILL_ROUNDS && now != before; i++) {
			before = now;
			now = signal_descendants(all, s->pid, SIGSTOP);
		}
		signal_descendants(all, s->pid, SIGKILL);
	}
	kill(-s->pid, SIGKILL);
}

bool spawned_ended(const struct spawned *s)
{
	siginfo_t info = {0};
	return waitid(P_PID, (id_t)s->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == s->pid;
}

void spawned_reap(struct spawned *s, int *ret)
{
	kill(-s->pid, SIGKILL);
	while (waitpid(s->pid, ret, 0) < 0 && errno == EINTR)
		;
	close(steal_fd(&s->pidfd));
}
