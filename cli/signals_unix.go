//go:build unix

package cli

import (
	"os"
	"syscall"
)

// dumpSignal asks a worker for its stacks, as it does Celery's.
const dumpSignal = syscall.SIGUSR1

// workerSignals are those that only a worker heeds.
var workerSignals = []os.Signal{syscall.SIGHUP, dumpSignal}

// startAgain replaces the process by the program as it is on disk now, with the same arguments. It returns only with an error.
func startAgain() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(exe, os.Args, os.Environ()) //nolint:gosec // G702: this program itself, as it was started
}
