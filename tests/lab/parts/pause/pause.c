/* The lab's pause container: holds a pod's namespaces until it is told to end, and reaps what its pod orphans. */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void on_signal(int signal_number) {
	if (signal_number == SIGCHLD) {
		while (waitpid(-1, NULL, WNOHANG) > 0) {
		}
		return;
	}
	_exit(0);
}

int main(void) {
	const int handled[] = {SIGINT, SIGTERM, SIGCHLD};
	struct sigaction action = {.sa_handler = on_signal};

	for (size_t i = 0; i < sizeof handled / sizeof *handled; i++) {
		if (sigaction(handled[i], &action, NULL) != 0) {
			return EXIT_FAILURE;
		}
	}
	for (;;) {
		pause();
	}
}
