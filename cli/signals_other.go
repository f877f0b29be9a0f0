//go:build !unix

package cli

import (
	"errors"
	"os"
	"syscall"
)

// dumpSignal does not come here.
const dumpSignal = syscall.Signal(-1)

var workerSignals = []os.Signal{syscall.SIGHUP}

func startAgain() error { return errors.ErrUnsupported }
