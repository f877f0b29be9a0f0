//go:build unix && !linux

package databaseserver

import "syscall"

// dieWithParent has no equal here: a server whose parent is killed stays.
func dieWithParent(as *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: as}
}
