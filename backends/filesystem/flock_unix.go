//go:build unix && !solaris && !aix

package filesystem

import (
	"errors"
	"os"
	"syscall"
)

// tryLock locks a file, and tells whether it has. The lock ends with the file, also when the process dies.
func tryLock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		return false, nil
	}
	return err == nil, err
}
