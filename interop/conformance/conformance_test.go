package conformance

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gelery/gelery/interop"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := interop.Cleanup(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		os.Exit(code)
	}))
}

// versions are those whose suite is run.
var versions = []string{"5.2", "5.4", "5.6"}

var stacks = []interop.Stack{interop.RedisStack, interop.RabbitMQStack, interop.RabbitMQRPCStack}

// reportVariable names the file to which the long form adds what it has seen: make conformance sets it.
const reportVariable = "GELERY_CONFORMANCE_REPORT"

// TestSuite is the suite of each version on each stack. In the short form, some twenty tests, a Gelery worker must pass. In
// the long one all that count are run against a Python worker and a Gelery one, and what the first passes the second must.
func TestSuite(t *testing.T) {
	t.Parallel()
	for _, name := range versions {
		for _, stack := range stacks {
			t.Run("celery-"+name+"/"+stack.String(), func(t *testing.T) {
				t.Parallel()
				version := interop.FindVersion(t, name)
				if os.Getenv(reportVariable) != "" {
					long(t, version, stack)
					return
				}
				c := interop.Crossing{Version: version, Stack: stack, Direction: interop.PythonToGo}
				c.Cell(t, "Celery's own suite", func(t *testing.T) {
					report := (&Trial{Version: version, Stack: stack, Short: true, Patience: 10 * time.Minute}).Run(t)
					t.Log(report)
					if len(report.Verdicts) == 0 {
						t.Error("no test was chosen")
					}
					for _, v := range report.Missed() {
						t.Errorf("%s %s: %s", v.Outcome, v.Test, v.Why)
					}
				})
			})
		}
	}
}

func long(t *testing.T, version interop.Version, stack interop.Stack) {
	limit, _ := strconv.Atoi(os.Getenv("GELERY_CONFORMANCE_LIMIT"))
	workers := strings.Fields(os.Getenv("GELERY_CONFORMANCE_WORKERS"))
	if len(workers) == 0 {
		workers = []string{"python", "go"}
	}
	passed := map[string][]string{}
	for _, worker := range workers {
		trial := &Trial{
			Version: version, Stack: stack, Control: worker == "python", Tests: os.Getenv("GELERY_CONFORMANCE_TESTS"),
			Limit: time.Duration(limit) * time.Second, Patience: 90 * time.Minute,
		}
		report := trial.Run(t)
		note(t, trial, report)
		for _, v := range report.Verdicts {
			if v.Outcome == "passed" {
				passed[worker] = append(passed[worker], v.Test)
			}
		}
	}
	if !slices.Contains(workers, "go") {
		return
	}
	for _, test := range passed["python"] {
		if !slices.Contains(passed["go"], test) {
			t.Errorf("the Python worker passes %s, Gelery does not", test)
		}
	}
}

// note adds a trial to the report: its line of the table, and one for each test that was missed.
func note(t *testing.T, r *Trial, report Report) {
	t.Helper()
	key := fmt.Sprintf("%s\t%s\t%s", r.Version.Name, r.Stack, r.judged())
	lines := fmt.Sprintf("row\t%s\t%d\t%d\t%d\t%.0f\n", key, len(report.Verdicts)-len(report.Missed()), len(report.Verdicts), report.Again(), report.Took.Seconds())
	for _, v := range report.Missed() {
		lines += fmt.Sprintf("missed\t%s\t%s %s\t%s\n", key, v.Outcome, v.Test, v.Why)
	}
	f, err := os.OpenFile(os.Getenv(reportVariable), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteString(lines); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %v", key, report)
}
