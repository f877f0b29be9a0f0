// Package layout proves the plan of the house: which room may import which. DESIGN.md says why.
package layout

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/gelery/gelery"

// floors are the rooms from the top of the house to the ground. A room imports rooms of the floors below and itself,
// never one above it and never a neighbour on its own floor.
var floors = [][]string{
	{"examples", "interop"},
	{"cmd"},
	{"cli"},
	{"otelgelery", "settings"},
	{"monitor", "scheduler", "worker"},
	{"task"},
	{"backends"}, // above transport: results may travel as messages
	{"transport"},
	{"protocol/canvas"}, // what messages hold, taken apart
	{"protocol"},
	{"protocol/serialization", "protocol/compression"},
	{"protocol/value"},
	{"internal"}, // any room may use it, it knows none of them
}

// drivers live in folders of these rooms. A room below cli reaches them only through the registry of URL schemes, so
// that a program links the client libraries it uses and no others.
var driverRooms = []string{"transport", "backends", "scheduler"}

// helpers import package testing: linked into a program they would add its flags. Only tests and other helpers may
// import them.
var helpers = []string{"transport/transporttest", "backends/backendstest", "scheduler/storetest", "internal/testservice", "interop"}

// edge is one import: a package, and what a file of it imports, both relative to the module.
type edge struct {
	from, to string
	file     string
	test     bool // a _test.go file, which may import what it needs
}

// room returns the room a package belongs to and its floor, or "" and -1. The longest name wins: protocol/value is a
// room of its own inside protocol.
func room(pkg string) (name string, floor int) {
	floor = -1
	for i, names := range floors {
		for _, n := range names {
			if within(pkg, n) && len(n) > len(name) {
				name, floor = n, i
			}
		}
	}
	return name, floor
}

func within(pkg, folder string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }

func isHelper(pkg string) bool {
	return slices.ContainsFunc(helpers, func(h string) bool { return within(pkg, h) })
}

// driver returns the driver's folder a package belongs to ("transport/redis"), or "".
func driver(pkg string) string {
	for _, r := range driverRooms {
		if name, ok := strings.CutPrefix(pkg, r+"/"); ok && !isHelper(pkg) {
			name, _, _ = strings.Cut(name, "/")
			return r + "/" + name
		}
	}
	return ""
}

// check returns what is wrong with an import, or "".
func check(e edge) string {
	from, fromFloor := room(e.from)
	to, toFloor := room(e.to)
	_, cli := room("cli")
	switch {
	case from == "":
		return fmt.Sprintf("package %q fits no room of the plan", e.from)
	case to == "":
		return fmt.Sprintf("package %q, which it imports, fits no room of the plan", e.to)
	case e.test:
		return ""
	case from != to && fromFloor > toFloor:
		return fmt.Sprintf("%s imports %s: imports run downward only", from, to)
	case from != to && fromFloor == toFloor:
		return fmt.Sprintf("%s imports %s: neighbours on one floor do not know each other", from, to)
	case isHelper(e.to) && !isHelper(e.from) && from != "examples":
		return fmt.Sprintf("%s imports the test helper %s outside a test", e.from, e.to)
	}
	if d := driver(e.to); d != "" && fromFloor > cli && driver(e.from) != d {
		return fmt.Sprintf("%s imports the driver %s: below cli, drivers are opened by URL only", e.from, d)
	}
	return ""
}

// imports reads the imports of every Go file below root, whatever its build tags, that stay within the module.
func imports(root string) ([]edge, error) {
	var edges []edge
	files := token.NewFileSet()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if name != root && (strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata") {
				return filepath.SkipDir // what the go tool does not see either
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil && name != root {
				return filepath.SkipDir // a module of its own
			}
			return nil
		case filepath.Ext(name) != ".go":
			return nil
		}
		file, err := parser.ParseFile(files, name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		for _, i := range file.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			if to, ok := strings.CutPrefix(imported, module+"/"); ok {
				edges = append(edges, edge{from: path.Dir(rel), to: to, file: rel, test: strings.HasSuffix(rel, "_test.go")})
			}
		}
		return nil
	})
	return edges, err
}

func TestImportsRunDownward(t *testing.T) {
	t.Parallel()
	edges, err := imports("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(edges) == 0 {
		t.Fatal("no import of the module within itself was found: the walk looks in the wrong place")
	}
	for _, e := range edges {
		if problem := check(e); problem != "" {
			t.Errorf("%s: %s", e.file, problem)
		}
	}
}

func TestCheckerSeesWhatIsWrong(t *testing.T) {
	t.Parallel()
	tests := []struct {
		from, to string
		test     bool
		want     string // part of the problem; "": allowed
	}{
		{from: "cmd/gelery", to: "cli"},
		{from: "cli", to: "worker"},
		{from: "cli", to: "transport/redis"},
		{from: "worker", to: "task"},
		{from: "worker", to: "protocol/value"},
		{from: "task", to: "transport"},
		{from: "transport/redis", to: "transport"},
		{from: "transport/redis", to: "transport/redis/script"},
		{from: "transport/transporttest", to: "internal/testservice"},
		{from: "backends/redis", to: "internal/redisconn"},
		{from: "protocol", to: "protocol/serialization"},
		{from: "protocol/serialization", to: "protocol/value"},
		{from: "internal/redisconn", to: "internal/brokerurl"},
		{from: "interop", to: "internal/testservice"},
		{from: "examples/quickstart", to: "transport/memory"},
		{from: "task", to: "transport/memory", test: true},
		{from: "task", to: "worker", test: true},

		{from: "task", to: "worker", want: "downward"},
		{from: "transport", to: "task", want: "downward"},
		{from: "transport/redis", to: "worker", want: "downward"},
		{from: "protocol", to: "transport", want: "downward"},
		{from: "protocol/value", to: "protocol", want: "downward"},
		{from: "protocol/value", to: "protocol/serialization", want: "downward"},
		{from: "internal/redisconn", to: "transport", want: "downward"},
		{from: "internal/redisconn", to: "protocol/value", want: "downward"},
		{from: "cli", to: "cmd/gelery", want: "downward"},
		{from: "otelgelery", to: "worker"},
		{from: "cli", to: "settings"},
		{from: "worker", to: "otelgelery", want: "downward"},
		{from: "scheduler", to: "worker", want: "neighbours"},
		{from: "monitor", to: "worker", want: "neighbours"},
		{from: "backends/rpc", to: "transport"},
		{from: "transport", to: "backends", want: "downward only"},
		{from: "protocol/compression", to: "protocol/serialization", want: "neighbours"},
		{from: "task", to: "transport/redis", want: "by URL only"},
		{from: "worker", to: "backends/memory", want: "by URL only"},
		{from: "transport", to: "transport/memory", want: "by URL only"},
		{from: "transport/redis", to: "transport/memory", want: "by URL only"},
		{from: "worker", to: "internal/testservice", want: "test helper"},
		{from: "transport/redis", to: "transport/transporttest", want: "test helper"},
		{from: "util", to: "task", want: "fits no room"},
		{from: "task", to: "protocolx", want: "fits no room"},
	}
	for _, tt := range tests {
		t.Run(tt.from+" to "+tt.to, func(t *testing.T) {
			t.Parallel()
			got := check(edge{from: tt.from, to: tt.to, test: tt.test})
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("check says %q, want %q", got, tt.want)
			}
		})
	}
}
