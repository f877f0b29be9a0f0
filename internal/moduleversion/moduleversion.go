// Package moduleversion tells which Gelery a program was built with.
package moduleversion

import "runtime/debug"

const path = "github.com/gelery/gelery"

// Devel is the version of a program that was built from a tree.
const Devel = "(devel)"

// Read returns the version of this module, which may be a dependency of the program's, and the revision of the tree that
// the program was built from, as far as they are known.
func Read() (version, revision string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Devel, ""
	}
	if info.Main.Path != path {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version, ""
			}
		}
		return Devel, ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value[:min(12, len(s.Value))]
		}
	}
	if info.Main.Version == "" {
		return Devel, revision
	}
	return info.Main.Version, revision
}
