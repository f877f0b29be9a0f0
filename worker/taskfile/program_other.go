//go:build !unix

package taskfile

import "github.com/gelery/gelery/task"

// program refuses commands where there are no process groups to end them by.
func (e *entry) program(complain func(string, ...any)) task.Handler {
	complain("command: programs can be tasks on unix systems only")
	return nil
}
