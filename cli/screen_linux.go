package cli

import (
	"os"
	"syscall"
	"unsafe"
)

// windowSize asks the terminal; 0, 0 if there is none.
func windowSize(f *os.File) (rows, columns int) {
	var size struct{ rows, columns, width, height uint16 }
	_, _, failed := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size))) //nolint:gosec // the kernel fills it in before it returns
	if failed != 0 {
		return 0, 0
	}
	return int(size.rows), int(size.columns)
}
