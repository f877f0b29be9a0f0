// Command testreport reads the output of `go test -json` and says what a person needs to know of it: a line per package
// as it ends, the whole output of what failed, and at the end the interop cells per Celery version, what was skipped,
// and the counts. It fails when a test failed, when one was skipped, when none ran, or when a Celery version that was to
// be tested has no cell.
//
//	go test -json ./... | go run ./scripts/testreport -cells FILE -versions 5.2,5.6
//
// With -again FILE, a run of which nothing is wrong but one to three failed tests names them in FILE, a line "package test"
// for each: whoever tries them again must tell of it. Never named are tests of internal/faults, where a
// failure is a lost task, and whatever has panicked or raced.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	cells := flag.String("cells", "", "file with the interop cells that ran")
	versions := flag.String("versions", "", "Celery versions that must have cells, separated by commas")
	again := flag.String("again", "", "file for the tests that may be tried again")
	flag.Parse()

	r := newReport(os.Stdout)
	if err := r.readTests(os.Stdin); err != nil {
		r.problem("go test: %v", err)
	}
	if *cells != "" {
		f, err := os.Open(*cells)
		if err == nil {
			err = r.readCells(f, strings.Split(*versions, ","))
		}
		if err != nil {
			r.problem("interop cells: %v", err)
		}
	}
	if r.finish() {
		return
	}
	if doubtful := r.doubtful(); len(doubtful) > 0 && *again != "" {
		if err := os.WriteFile(*again, []byte(strings.Join(doubtful, "\n")+"\n"), 0o600); err != nil {
			r.say("%v", err)
		}
	}
	os.Exit(1)
}

// event is a line of `go test -json` (go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build output
	Test        string
	Output      string
	FailedBuild string
}

// test names a test; a package's own output has an empty name.
type test struct{ pkg, name string }

// report collects what is said at the end. Output of a running test is kept until its end and dropped when it passed.
type report struct {
	w        io.Writer
	output   map[test][]string
	running  map[string]bool // packages that have started and not ended
	passed   int
	failed   int
	skipped  []string
	problems []string

	excusable map[string]bool // failed tests that may be tried again: "package test"
	excused   int             // problems that are such a failure
	found     int             // problems in all
}

func newReport(w io.Writer) *report {
	return &report{w: w, output: map[test][]string{}, running: map[string]bool{}, excusable: map[string]bool{}}
}

func (r *report) say(format string, args ...any) { _, _ = fmt.Fprintf(r.w, format+"\n", args...) }

func (r *report) problem(format string, args ...any) {
	r.found++
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

func (r *report) readTests(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Action == "" {
			r.say("%s", lines.Text()) // go itself, not a test: a download, a complaint
			continue
		}
		r.take(e)
	}
	return lines.Err()
}

func (r *report) take(e event) {
	t := test{e.Package, e.Test}
	switch e.Action {
	case "output", "build-output":
		if e.Package == "" {
			t.pkg = e.ImportPath
		}
		r.output[t] = append(r.output[t], e.Output)
		return
	case "start":
		r.running[e.Package] = true
		return
	case "pass":
		if e.Test != "" {
			r.passed++
		}
	case "skip":
		// A package without tests is skipped, too; that is nothing to complain about.
		if e.Test != "" {
			r.skipped = append(r.skipped, e.Package+" "+e.Test+": "+reason(r.output[t]))
		}
	case "fail":
		r.fail(e)
	default:
		return
	}
	if e.Test == "" {
		delete(r.running, e.Package)
	}
	if e.Test == "" && e.Action != "fail" {
		if summary := r.output[t]; len(summary) > 0 {
			r.say("%s", strings.TrimRight(summary[len(summary)-1], "\n"))
		}
	}
	delete(r.output, t)
}

func (r *report) fail(e event) {
	if e.Test != "" {
		r.failed++
		r.problem("%s %s", e.Package, e.Test)
	} else {
		r.problem("%s", e.Package)
	}
	r.excuse(e)
	if e.FailedBuild != "" {
		r.say("%s", strings.Join(r.output[test{pkg: e.FailedBuild}], ""))
	}
	r.say("%s", strings.Join(r.output[test{e.Package, e.Test}], ""))
}

// grave are the words of a failure that no second try excuses.
var grave = []string{"DATA RACE", "panic: ", "test timed out", "found unexpected goroutines"}

// excuse notes a failure that may be tried again: a test's, and its package's because of it.
func (r *report) excuse(e event) {
	output := strings.Join(r.output[test{e.Package, e.Test}], "")
	if e.FailedBuild != "" || strings.HasSuffix(e.Package, "internal/faults") ||
		slices.ContainsFunc(grave, func(words string) bool { return strings.Contains(output, words) }) {
		return
	}
	if e.Test != "" {
		top, _, _ := strings.Cut(e.Test, "/")
		r.excusable[e.Package+" "+top] = true
		r.excused++
		return
	}
	for name := range r.excusable {
		if pkg, _, _ := strings.Cut(name, " "); pkg == e.Package {
			r.excused++
			return
		}
	}
}

// mostDoubtful is how many failed tests may be tried again: more at once are no accident.
const mostDoubtful = 3

// doubtful names the failed tests that may be tried again; none if there is more wrong than they.
func (r *report) doubtful() []string {
	if r.excused < r.found || len(r.excusable) > mostDoubtful {
		return nil
	}
	return slices.Sorted(maps.Keys(r.excusable))
}

// reason is what a test said before it was skipped: the last line that is not the test runner's.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			return line
		}
	}
	return "no reason given"
}

// readCells reads the lines that interop.Cell wrote and prints a table by version and direction.
func (r *report) readCells(in io.Reader, want []string) error {
	type row struct{ version, direction string }
	counts := map[row]map[string]int{}
	perVersion := map[string]int{}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) != 4 {
			return fmt.Errorf("line %q has not four fields", lines.Text())
		}
		k := row{fields[0], fields[1]}
		if counts[k] == nil {
			counts[k] = map[string]int{}
		}
		counts[k][fields[3]]++
		if fields[3] != "skip" {
			perVersion[fields[0]]++
		}
	}
	rows := make([]row, 0, len(counts))
	for k := range counts {
		rows = append(rows, k)
	}
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.version+a.direction, b.version+b.direction) })
	r.say("\ninterop cells   direction      passed  failed  skipped")
	for _, k := range rows {
		n := counts[k]
		r.say("celery %-8s %-14s %6d  %6d  %7d", k.version, k.direction, n["pass"], n["fail"], n["skip"])
		if n["skip"] > 0 {
			r.problem("celery %s %s: %d interop cells were skipped", k.version, k.direction, n["skip"])
		}
	}
	for _, v := range want {
		if v != "" && perVersion[v] == 0 {
			r.problem("celery %s: no interop cell ran", v)
		}
	}
	return lines.Err()
}

// finish prints the end of the report and tells whether all is well.
func (r *report) finish() bool {
	for t, lines := range r.output {
		// A test without an end: the run was cut off, and its last words are the only trace.
		if t.name != "" {
			r.problem("%s %s: it never ended", t.pkg, t.name)
			r.say("%s", strings.Join(lines[max(0, len(lines)-200):], ""))
		}
	}
	for pkg := range r.running {
		r.problem("%s: it never ended", pkg)
	}
	if len(r.skipped) > 0 {
		r.say("\nskipped, which this run does not allow:\n  %s", strings.Join(r.skipped, "\n  "))
		r.problem("%d tests were skipped", len(r.skipped))
	}
	if r.passed+r.failed == 0 {
		r.problem("no test ran")
	}
	if len(r.problems) > 0 {
		slices.Sort(r.problems)
		r.say("\nwhat is wrong:\n  %s", strings.Join(slices.Compact(r.problems), "\n  "))
	}
	r.say("\ntests: %d passed, %d failed, %d skipped", r.passed, r.failed, len(r.skipped))
	return len(r.problems) == 0
}
