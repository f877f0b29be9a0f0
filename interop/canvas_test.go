package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// canvasTasks are the tasks of python/canvases.py on this side.
func canvasTasks() *worker.Mux {
	mux := worker.NewMux()
	mux.Func("go.add", func(x, y int) (int, error) { return x + y, nil })
	mux.Func("go.total", func(numbers []int) (int, error) {
		n := 0
		for _, x := range numbers {
			n += x
		}
		return n, nil
	})
	mux.Func("go.fail", func() error { return task.AsPython(nil, "builtins", "ValueError", "kaput") })
	worker.Handle(mux, task.Define[tellArgs, task.NoResult]("go.tell"), func(_ context.Context, a tellArgs) (none task.NoResult, err error) {
		f, err := os.OpenFile(a.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return none, err
		}
		_, err = fmt.Fprintln(f, a.Message)
		return none, errors.Join(err, f.Close())
	})
	mux.Func("go.replaced", func(name, queue string, x int) (int, error) {
		return 0, task.Replace(task.S(name, x, 1).With(task.Queue(queue)))
	})
	return mux
}

type tellArgs struct {
	Message any
	Path    string `task:"path,kwonly"`
}

func goSig(name string, args ...any) task.Signature {
	return task.S("go."+name, args...).With(task.Queue(goQueue))
}

func pySig(name string, args ...any) task.Signature {
	return task.S("py."+name, args...).With(task.Queue(pyQueue))
}

// workflow is the same workflow built by Python and by Go.
type workflow struct {
	name   string
	python string
	golang task.Signature
	want   string // JSON
	fails  string // part of the exception
	chord  bool   // there is one in it, which rpc:// cannot have
}

// Each goes over the border as often as it can, whoever begins.
func workflows() []workflow {
	add, fail := goSig("add", 1, 1), goSig("fail")
	return []workflow{
		{"chain", `py('add', 1, 1) | go('add', 2) | py('add', 3) | go('add', 4)`,
			task.Chain(pySig("add", 1, 1), goSig("add", 2), pySig("add", 3), goSig("add", 4)), `11`, "", false},
		{"immutable step", `chain(go('add', 1, 1), py('add', 2, 2, immutable=True), go('add', 3))`,
			task.Chain(add, pySig("add", 2, 2).Immutable(), goSig("add", 3)), `7`, "", false},
		{"group", `group(py('add', 1, 1), go('add', 2, 2), py('add', 3, 3) | go('add', 1))`,
			task.Group(pySig("add", 1, 1), goSig("add", 2, 2), pySig("add", 3, 3).Then(goSig("add", 1))), `[2, 4, 7]`, "", false},
		{"group at the end of a Go step", `go('add', 1, 1) | group(py('add', 1), go('add', 2))`,
			task.Chain(add, task.Group(pySig("add", 1), goSig("add", 2))), `[3, 4]`, "", false},
		{"failed Go step", `chain(py('add', 1, 1), go('fail', immutable=True), py('add', 1), go('add', 1))`,
			task.Chain(pySig("add", 1, 1), fail.Immutable(), pySig("add", 1), goSig("add", 1)), "", "kaput", false},
		{"failed Python step", `chain(go('add', 1, 1), py('fail', 'kaput', immutable=True), go('add', 1), py('add', 1))`,
			task.Chain(add, pySig("fail", "kaput").Immutable(), goSig("add", 1), pySig("add", 1)), "", "kaput", false},
		{"replaced by the other side", `chain(go('add', 1, 1), call('py.replaced', 'py', 'go.add', 'go', 2, immutable=True), py('add', 1))`,
			task.Chain(add, pySig("replaced", "go.add", goQueue, 2).Immutable(), pySig("add", 1)), `4`, "", false},
		{"replaced by Go", `chain(py('add', 1, 1), call('go.replaced', 'go', 'py.add', 'py', 2, immutable=True), go('add', 1))`,
			task.Chain(pySig("add", 1, 1), goSig("replaced", "py.add", pyQueue, 2).Immutable(), goSig("add", 1)), `4`, "", false},
		{"chord with a Go body", `chord([py('add', 1, 1), go('add', 2, 2), py('add', 3, 3) | go('add', 1)], go('total'))`,
			task.Chord(task.Group(pySig("add", 1, 1), goSig("add", 2, 2), pySig("add", 3, 3).Then(goSig("add", 1))), goSig("total")), `13`, "", true},
		{"chord with a Python body", `chord([go('add', 1, 1), py('add', 2, 2), go('add', 3, 3) | py('add', 1)], py('total'))`,
			task.Chord(task.Group(add, pySig("add", 2, 2), goSig("add", 3, 3).Then(pySig("add", 1))), pySig("total")), `13`, "", true},
		{"chord in a chain", `go('add', 1, 1) | group(py('add', 1), go('add', 2)) | py('total') | go('add', 10)`,
			task.Chain(add, task.Group(pySig("add", 1), goSig("add", 2)), pySig("total"), goSig("add", 10)), `17`, "", true},
		{"chord after a Python step", `py('add', 1, 1) | group(py('add', 1), go('add', 2)) | go('total') | py('add', 10)`,
			task.Chain(pySig("add", 1, 1), task.Group(pySig("add", 1), goSig("add", 2)), goSig("total"), pySig("add", 10)), `17`, "", true},
		{"chord in a chord", `chord([chord([go('add', 1, 1), py('add', 1, 1)], go('total')), py('add', 2, 2)], py('total'))`,
			task.Chord(task.Group(task.Chord(task.Group(add, pySig("add", 1, 1)), goSig("total")), pySig("add", 2, 2)), pySig("total")), `8`, "", true},
		{"failed Go part", `chord([py('add', 1, 1), go('fail')], py('total'))`,
			task.Chord(task.Group(pySig("add", 1, 1), fail), pySig("total")), "", "kaput", true},
		{"failed Python part", `chord([go('add', 1, 1), py('fail', 'kaput')], go('total'))`,
			task.Chord(task.Group(add, pySig("fail", "kaput")), goSig("total")), "", "kaput", true},
		{"failed chain in a part", `chord([go('add', 1, 1), go('fail') | py('add', 1)], go('total'))`,
			task.Chord(task.Group(add, fail.Then(pySig("add", 1))), goSig("total")), "", "kaput", true},
		{"part that is replaced", `chord([go('replaced', 'py.add', 'py', 2), py('replaced', 'go.add', 'go', 3), go('add', 1, 1)], py('total'))`,
			task.Chord(task.Group(goSig("replaced", "py.add", pyQueue, 2), pySig("replaced", "go.add", goQueue, 3), add), pySig("total")), `9`, "", true},
	}
}

// TestCanvas runs workflows across the border, built by Python and by Go.
func TestCanvas(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, everyStack, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		s.Queue, s.Conf = pyQueue, map[string]any{"imports": []string{"canvases"}}
		c.StartWorker(t, s, "threads", 2)
		config := task.Config{Broker: s.Broker, Backend: s.Backend, Queue: goQueue}
		runMux(t, config, canvasTasks(), worker.Config{Concurrency: 2, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
		driver := c.StartDriver(t, s)
		client := connect(t, config)
		for _, w := range workflows() {
			if w.chord && c.Stack == RabbitMQRPCStack {
				continue
			}
			c.To(PythonToGo).Cell(t, w.name+", built by Python", func(t *testing.T) {
				w.judge(t, driver.Do(t, Command{Op: "canvas", Expression: w.python}))
			})
			c.To(PythonToGo).Cell(t, w.name+", written by Go and sent by Python", func(t *testing.T) {
				text, err := json.Marshal(w.golang)
				if err != nil {
					t.Fatal(err)
				}
				w.judge(t, driver.Do(t, Command{Op: "canvas", Signature: text}))
			})
			c.To(GoToPython).Cell(t, w.name+", built by Go", func(t *testing.T) {
				r, err := client.Apply(within(t), w.golang)
				if err != nil {
					t.Fatal(err)
				}
				got, err := r.Get(within(t))
				switch {
				case w.fails != "":
					if err == nil || !strings.Contains(err.Error(), w.fails) {
						t.Errorf("%v, %v; expected %s", got, err, w.fails)
					}
				case err != nil:
					t.Error(err)
				default:
					text, _ := json.Marshal(got)
					if want := strings.ReplaceAll(w.want, " ", ""); string(text) != want {
						t.Errorf("%s, expected %s", text, want)
					}
				}
			})
		}
		c.callbacks(t, client)
	})
}

func (w *workflow) judge(t *testing.T, got Answer) {
	t.Helper()
	switch {
	case !got.OK:
		t.Errorf("%s: %s", got.Kind, got.Error)
	case w.fails != "":
		if got.Exception == nil || !strings.Contains(fmt.Sprint(got.Exception.Args), w.fails) {
			t.Errorf("%+v, expected a failure with %s", got, w.fails)
		}
	case string(got.Value) != w.want:
		t.Errorf("%s (%+v), expected %s", got.Value, got.Exception, w.want)
	}
}

// callbacks checks that callbacks and error callbacks of either side are called by either side, and with what.
func (c Crossing) callbacks(t *testing.T, client *task.Client) {
	for _, side := range []struct {
		direction, name string
		own, other      func(string, ...any) task.Signature
	}{{PythonToGo, "go", goSig, pySig}, {GoToPython, "py", pySig, goSig}} {
		tell := func(of func(string, ...any) task.Signature, file string) task.Signature {
			return of("tell").Kwargs(map[string]any{"path": file})
		}
		c.To(side.direction).Cell(t, "callbacks of a task in "+side.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "told")
			sig := side.own("add", 1, 2).Link(tell(goSig, file), tell(pySig, file), side.other("add", 10).Then(tell(side.own, file)))
			if _, err := client.Apply(within(t), sig); err != nil {
				t.Fatal(err)
			}
			told(t, file, "13", "3", "3")
		})
		c.To(side.direction).Cell(t, "error callbacks of a task in "+side.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "told")
			fail := goSig("fail")
			if side.name == "py" {
				fail = pySig("fail", "kaput")
			}
			r, err := client.Apply(within(t), fail.LinkError(tell(goSig, file), tell(pySig, file)))
			if err != nil {
				t.Fatal(err)
			}
			told(t, file, r.ID(), r.ID())
		})
	}
}

// told waits until a file has so many lines, and compares them.
func told(t *testing.T, file string, want ...string) {
	t.Helper()
	var lines []string
	for ctx := within(t); len(lines) < len(want); {
		select {
		case <-ctx.Done():
			t.Fatalf("told %q, expected %q", lines, want)
		case <-time.After(20 * time.Millisecond):
		}
		lines = nil
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			lines = append(lines, s.Text())
		}
		_ = f.Close()
	}
	slices.Sort(want)
	slices.Sort(lines)
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}
