// Package poolchild tells a process that it is a child of a process pool: the same program as its parent, which serves
// the parent in place of consuming. Every room may ask, so that a child connects to no broker it does not use.
package poolchild

import (
	"os"
	"strings"
)

// Variable is the environment variable with which a parent starts a child. It holds the node name of the worker whose
// pool it is. The variable is gone once the child has read it: programs that a task starts are no children of the pool.
const Variable = "GELERY_POOL_CHILD"

// The descriptors a child inherits: it reads what its parent sends from the first and answers on the second.
const (
	inFD  = 3
	outFD = 4
)

var (
	is      bool
	node    string
	in, out *os.File
)

// init runs before the program's own code, which may start programs or read the environment.
func init() {
	name, ok := os.LookupEnv(Variable)
	if !ok {
		return
	}
	_ = os.Unsetenv(Variable)
	in, out, is = inherit()
	node = strings.TrimSpace(name)
}

// Is tells whether this process is a child of a process pool.
func Is() bool { return is }

// Node is the node name of the worker whose child this process is.
func Node() string { return node }

// Pipes are the ends of the child's pipes to its parent; nil in a process that is no child.
func Pipes() (fromParent, toParent *os.File) { return in, out }
