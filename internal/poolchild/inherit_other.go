//go:build !unix

package poolchild

import "os"

// inherit has nothing to take over: there is no process pool here.
func inherit() (fromParent, toParent *os.File, ok bool) { return nil, nil, false }
