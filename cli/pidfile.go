package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// holdPIDFile writes the number of this process into a file that no running process has; one that a dead process left is taken over.
// Remove must be called. "" is no file.
func holdPIDFile(path string) (remove func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	for range 2 {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if errors.Is(err, fs.ErrExist) {
			if holder := processOf(path); holder != "" {
				return nil, &failure{exitCannotCreate, "pidfile " + path + " already exists", "process " + holder + " runs",
					"stop it first; if it is no beat, remove the file"}
			}
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, &failure{exitCannotCreate, "pidfile " + path + " cannot be replaced", err.Error(), ""}
			}
			continue
		}
		if err == nil {
			_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return nil, &failure{exitCannotCreate, "pidfile " + path + " cannot be made", err.Error(), "name another one with --pidfile"}
		}
		return func() { _ = os.Remove(path) }, nil
	}
	return nil, &failure{exitCannotCreate, "pidfile " + path + " is taken by somebody else", "", ""}
}

// processOf is the process that has a pid file, "" if none that runs.
func processOf(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	number := strings.TrimSpace(string(text))
	pid, err := strconv.Atoi(number)
	switch {
	case number == "":
		return "unknown, which has just made it," // or it died in between: the operator is to look
	case err != nil || pid <= 0 || pid == os.Getpid(): // a container's processes have the same numbers again
		return ""
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return ""
	}
	if err := p.Signal(syscall.Signal(0)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return ""
	}
	return number
}
