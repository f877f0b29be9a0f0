package main

import (
	"strings"
	"testing"
)

const passing = `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"noise of a test that passed\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`

func TestReport(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		events string
		cells  string
		ok     bool
		want   []string // parts of what is printed
		not    string
	}{
		{name: "all passed", events: passing, cells: "5.2\tgo-to-python\ta\tpass\n5.6\tgo-to-python\ta\tpass\n", ok: true,
			want: []string{"ok  \tp\t0.1s", "celery 5.2", "tests: 1 passed, 0 failed, 0 skipped"}, not: "noise"},
		{name: "nothing ran", events: "", cells: "5.2\td\ta\tpass\n5.6\td\ta\tpass\n", want: []string{"no test ran"}},
		{name: "a version has no cell", events: passing, cells: "5.6\tgo-to-python\ta\tpass\n", want: []string{"celery 5.2: no interop cell ran"}},
		{name: "a version has skipped cells only", events: passing, cells: "5.2\td\ta\tskip\n5.6\td\ta\tpass\n",
			want: []string{"celery 5.2: no interop cell ran", "1 interop cells were skipped"}},
		{name: "broken cells", events: passing, cells: "5.2 go-to-python\n", want: []string{"has not four fields"}},
		{name: "a test failed", events: passing + `{"Action":"output","Package":"q","Test":"TestB","Output":"q_test.go:1: broken\n"}
{"Action":"fail","Package":"q","Test":"TestB"}
{"Action":"output","Package":"q","Output":"FAIL\tq\t0.1s\n"}
{"Action":"fail","Package":"q"}`, want: []string{"q_test.go:1: broken", "q TestB", "tests: 1 passed, 1 failed, 0 skipped"}},
		{name: "a test was skipped", events: passing + `{"Action":"output","Package":"q","Test":"TestB","Output":"    q_test.go:1: no server here\n"}
{"Action":"output","Package":"q","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"q","Test":"TestB"}`, want: []string{"q TestB: q_test.go:1: no server here", "1 tests were skipped"}},
		{name: "a package without tests", events: passing + `{"Action":"output","Package":"q","Output":"?   \tq\t[no test files]\n"}
{"Action":"skip","Package":"q"}`, cells: "5.2\td\ta\tpass\n5.6\td\ta\tpass\n", ok: true, want: []string{"no test files"}},
		{name: "a package does not build", events: passing + `{"ImportPath":"q [q.test]","Action":"build-output","Output":"q.go:1: syntax error\n"}
{"ImportPath":"q [q.test]","Action":"build-fail"}
{"Action":"start","Package":"q"}
{"Action":"output","Package":"q","Output":"FAIL\tq [build failed]\n"}
{"Action":"fail","Package":"q","FailedBuild":"q [q.test]"}`, want: []string{"q.go:1: syntax error", "build failed"}},
		{name: "a package was cut off", events: passing + `{"Action":"start","Package":"q"}`, want: []string{"q: it never ended"}},
		{name: "a test was cut off", events: passing + `{"Action":"output","Package":"q","Test":"TestB","Output":"last words\n"}`,
			want: []string{"q TestB: it never ended", "last words"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			r := newReport(&out)
			if err := r.readTests(strings.NewReader(tt.events)); err != nil {
				t.Fatal(err)
			}
			if err := r.readCells(strings.NewReader(tt.cells), []string{"5.2", "5.6"}); err != nil {
				r.problem("%v", err)
			}
			if ok := r.finish(); ok != tt.ok {
				t.Errorf("finish says %v, want %v", ok, tt.ok)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in\n%s", want, out.String())
				}
			}
			if tt.not != "" && strings.Contains(out.String(), tt.not) {
				t.Errorf("%q in\n%s", tt.not, out.String())
			}
		})
	}
}

// TestDoubtful: a few plain failures may be tried again, and nothing else.
func TestDoubtful(t *testing.T) {
	t.Parallel()
	failed := func(pkg, name, output string) string {
		return `{"Action":"output","Package":"` + pkg + `","Test":"` + name + `","Output":"` + output + `\n"}
{"Action":"fail","Package":"` + pkg + `","Test":"` + name + `"}
{"Action":"fail","Package":"` + pkg + `"}
`
	}
	few := failed("p", "TestA/x", "late") + failed("q", "TestB", "late")
	for events, want := range map[string]string{
		few: "p TestA,q TestB",
		few + failed("q", "TestC", "late") + failed("q", "TestD", "late"): "",
		few + failed("q", "TestC", "WARNING: DATA RACE"):                  "",
		failed("m/internal/faults", "TestA", "lost"):                      "",
		few + `{"Action":"fail","Package":"r"}`:                           "",
		few + `{"Action":"skip","Package":"p","Test":"TestS"}`:            "",
		few + `{"Action":"start","Package":"r"}`:                          "",
		passing:                                                           "",
	} {
		r := newReport(&strings.Builder{})
		if err := r.readTests(strings.NewReader(events)); err != nil {
			t.Fatal(err)
		}
		r.finish()
		if got := strings.Join(r.doubtful(), ","); got != want {
			t.Errorf("%s\nmay be tried again: %q, expected %q", events, got, want)
		}
	}
}
