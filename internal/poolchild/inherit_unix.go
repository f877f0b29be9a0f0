//go:build unix

package poolchild

import (
	"os"
	"syscall"
)

// inherit takes over the descriptors. False: they are no pipes, so nobody has started this process as a child.
func inherit() (fromParent, toParent *os.File, ok bool) {
	for _, fd := range []int{inFD, outFD} {
		var s syscall.Stat_t
		if syscall.Fstat(fd, &s) != nil || s.Mode&syscall.S_IFMT != syscall.S_IFIFO {
			return nil, nil, false
		}
	}
	for _, fd := range []int{inFD, outFD} {
		syscall.CloseOnExec(fd)
		_ = syscall.SetNonblock(fd, true) // so that the runtime's poller waits, and no thread
	}
	return os.NewFile(inFD, "pool-in"), os.NewFile(outFD, "pool-out"), true
}
