//go:build unix

package scheduler

import (
	"errors"
	"os"
	"syscall"
)

// tryLock takes the lock of a file that is there for nothing else, if nobody has it. It is free when its holder dies.
func tryLock(path string) (unlock func(), taken bool, err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, false, err
	}
	switch err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case err == nil:
		return func() { _ = file.Close() }, false, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		_ = file.Close()
		return nil, true, nil
	}
	_ = file.Close()
	return nil, false, err
}
