package interop

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/backends"
	_ "github.com/gelery/gelery/backends/filesystem"
	_ "github.com/gelery/gelery/backends/sql/mysql"
	_ "github.com/gelery/gelery/backends/sql/postgresql"
	_ "github.com/gelery/gelery/backends/sql/sqlite"
	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
)

// store is a result backend that both sides open by themselves, without a broker.
type store struct {
	name     string
	url, py  string // Go's and Python's
	pickles  bool   // values cross whatever the serializer
	children bool   // there is a place for them
	repr     bool   // Python stores arguments as their reprs, and no retries and queue
	few      bool   // of the sets of values a few do: the others cross in the same way elsewhere
}

// TestStores lets Python store results in databases and folders and Go read them, and the reverse.
func TestStores(t *testing.T) {
	t.Parallel()
	postgresql, mariadb := testservice.StartPostgreSQL(t), testservice.StartMariaDB(t)
	ForEachVersion(t, func(t *testing.T, v Version) {
		driver := v.startDriver(t, v.Command(t, Settings{}, "python", "stores.py"))
		stores := []store{
			{name: "sqlite", url: "db+sqlite:///" + filepath.Join(t.TempDir(), "results.db"), pickles: true},
			{name: "postgresql", url: "db+" + postgresql.NewDatabase(t), pickles: true, few: true},
			{name: "mysql", url: strings.Replace("db+"+mariadb.NewDatabase(t), "mysql:", "mysql+pymysql:", 1), pickles: true, few: true},
			{name: "file", url: "file://" + t.TempDir(), children: true},
		}
		for _, s := range stores {
			t.Run(s.name, func(t *testing.T) {
				s.py = s.url
				s.cross(t, Crossing{Version: v, Stack: Stack{Broker: "none", Backend: s.name}}, driver)
			})
		}
	})
}

// TestDjangoStores is TestStores with the tables of django-celery-results, which Django makes.
func TestDjangoStores(t *testing.T) {
	t.Parallel()
	v := FindVersion(t, "5.6")
	for _, database := range []string{
		"sqlite:///" + filepath.Join(t.TempDir(), "results.db"),
		testservice.StartPostgreSQL(t).NewDatabase(t),
		testservice.StartMariaDB(t).NewDatabase(t),
	} {
		kind, _, _ := strings.Cut(database, ":")
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			cmd := v.Command(t, Settings{Backend: database}, "python", "stores.py")
			cmd.Env = append(cmd.Env, "DJANGO=1")
			driver := v.startDriver(t, cmd)
			s := store{name: "django-" + kind, url: "django-db+" + database, py: "django-db", children: true, repr: true, few: kind != "sqlite"}
			s.cross(t, Crossing{Version: v, Stack: Stack{Broker: "none", Backend: s.name}}, driver)
		})
	}
}

const (
	lastLine  = "Traceback (most recent call last):\n  the line\n"
	childTask = "child"
)

// outcomes are those of python/stores.py.
var outcomes = map[string]protocol.ResultMeta{
	"success":     {Status: protocol.Success, Result: map[string]any{"total": int64(3), "lines": []any{1.5, nil, "é"}}},
	"nothing":     {Status: protocol.Success},
	"failure":     {Status: protocol.Failure, Exception: &protocol.Exception{Type: "ValueError", Module: "builtins", Args: []any{"kaput", int64(42)}}, Traceback: lastLine},
	"own failure": {Status: protocol.Failure, Exception: &protocol.Exception{Type: "CardDeclined", Module: "app", Args: []any{"no money", int64(402)}}, Traceback: lastLine},
	"unencodable failure": {Status: protocol.Failure, Exception: &protocol.Exception{Type: "ValueError", Module: "builtins", Args: []any{"<class 'object'>"}},
		Traceback: lastLine},
	"retry":   {Status: protocol.Retry, Exception: &protocol.Exception{Type: "KeyError", Module: "builtins", Args: []any{"not yet"}}, Traceback: lastLine},
	"revoked": {Status: protocol.Revoked, Exception: &protocol.Exception{Type: "TaskRevokedError", Module: "celery.exceptions", Args: []any{"expired"}}},
	"started": {Status: protocol.Started, Result: map[string]any{"pid": int64(7), "hostname": "w@h"}},
	"custom":  {Status: "PROGRESS", Result: map[string]any{"done": int64(5), "of": int64(9)}},
}

func (s store) cross(t *testing.T, c Crossing, driver *Driver) {
	t.Helper()
	do := func(t *testing.T, command Command) Answer {
		t.Helper()
		command.Task = s.py
		answer := driver.Do(t, command)
		if !answer.OK {
			t.Fatalf("%s %s: %s: %s", command.Op, command.ID, answer.Kind, answer.Error)
		}
		return answer
	}
	// Either side makes the tables.
	if c.Name != "5.6" && c.Name != "5.3" {
		do(t, Command{Op: "outcome", ID: "first"})
	}
	b, err := backends.Open(within(t), s.url, backends.Options{Expires: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	s.pythonToGo(t, c.To(PythonToGo), b, do)
	s.goToPython(t, c.To(GoToPython), b, do)
	s.groups(t, c, b.(backends.GroupKeeper), do)
	s.cleanup(t, c, b, do)
}

// stored is what is stored of an outcome.
func (s store) stored(id string, m protocol.ResultMeta) protocol.ResultMeta {
	m.TaskID = id
	if s.children {
		m.Children = []protocol.ResultTuple{{ID: childTask}}
	}
	m.Extended = &protocol.ExtendedMeta{Name: "shop.bill", Args: []any{int64(1), "b"}, Kwargs: map[string]any{"c": nil}, Worker: "w@h", Retries: 2, Queue: "bills"}
	if m.Status.Ready() {
		m.DateDone = time.Date(2026, 11, 26, 10, 20, 30, 0, time.UTC)
	}
	return m
}

func (s store) pythonToGo(t *testing.T, c Crossing, b backends.Backend, do func(*testing.T, Command) Answer) {
	t.Helper()
	for name, m := range outcomes {
		c.Cell(t, "stored "+name, func(t *testing.T) {
			want, child := s.stored("py "+name, m), protocol.ResultTuple{ID: childTask}
			if s.repr {
				want.Extended.Args, want.Extended.Kwargs, want.Extended.Retries, want.Extended.Queue = nil, nil, 0, ""
			}
			before := time.Now().Truncate(time.Second) // a MySQL DATETIME keeps no more
			do(t, Command{Op: "keep", ID: want.TaskID, Args: []any{name}, Tuple: []any{child.Value()}})
			got, err := b.Get(within(t), want.TaskID)
			if err != nil {
				t.Fatal(err)
			}
			if want.Status.Ready() && (got.DateDone.Before(before) || got.DateDone.After(time.Now())) {
				t.Errorf("done at %v, expected it to be between %v and now", got.DateDone, before)
			}
			got.DateDone, want.DateDone = time.Time{}, time.Time{}
			if diff := cmp.Diff(&want, got); diff != "" {
				t.Errorf("Python stored (-), Go reads (+):\n%s", diff)
			}
		})
	}
	for _, set := range sets {
		if !s.carries(c.Version, set) || s.pickles && set.name == "uuid" { // Python pickles a UUID by the state of the object
			continue
		}
		c.Cell(t, "stored values "+set.name, func(t *testing.T) {
			do(t, Command{Op: "keep", ID: "py values " + set.name, Args: []any{set.name}})
			got, err := b.Get(within(t), "py values "+set.name)
			if err != nil {
				t.Fatal(err)
			}
			if !same(set.args, got.Result) {
				t.Errorf("got %s, want %s", short(got.Result), short(set.args))
			}
		})
	}
}

// carries tells whether a set of values crosses here.
func (s store) carries(v Version, set set) bool {
	if s.few && !slices.Contains([]string{"bytes", "nested", "unicode"}, set.name) {
		return false
	}
	return s.pickles || set.carries(v, "json")
}

// fields is what python/stores.py tells of a result.
type fields struct {
	Name     string  `json:"name"`
	Args     any     `json:"args"`
	Kwargs   any     `json:"kwargs"`
	Worker   string  `json:"worker"`
	Retries  *int    `json:"retries"`
	Queue    *string `json:"queue"`
	Children any     `json:"children"`
	DateDone *string `json:"date_done"`
}

func (s store) goToPython(t *testing.T, c Crossing, b backends.Backend, do func(*testing.T, Command) Answer) {
	t.Helper()
	retries, queue := 2, "bills"
	for name, m := range outcomes {
		c.Cell(t, "stored "+name, func(t *testing.T) {
			stored := s.stored("go "+name, m)
			if err := b.Store(within(t), []*protocol.ResultMeta{&stored}); err != nil {
				t.Fatal(err)
			}
			answer := do(t, Command{Op: "outcome", ID: stored.TaskID})
			if answer.State != string(m.Status) || answer.Traceback != m.Traceback {
				t.Errorf("state %s, traceback %q; want %s, %q", answer.State, answer.Traceback, m.Status, m.Traceback)
			}
			if e := m.Exception; e != nil {
				text, _ := json.Marshal(e.Args)
				var args []any
				_ = json.Unmarshal(text, &args)
				if got := answer.Exception; got == nil || got.Type != e.Type || got.Module != e.Module || !cmp.Equal(got.Args, args) {
					t.Errorf("exception %+v, want %+v", got, e)
				}
			}
			var got fields
			if err := json.Unmarshal(answer.Value, &got); err != nil {
				t.Fatal(err)
			}
			want := fields{Name: "shop.bill", Args: []any{1.0, "b"}, Kwargs: map[string]any{"c": nil}, Worker: "w@h", Children: []any{}, Retries: &retries, Queue: &queue}
			if s.repr { // a result of Django's has no name either
				want.Name, want.Retries, want.Queue = "", nil, nil
			}
			if s.children {
				want.Children = []any{[]any{[]any{childTask, nil}, nil}}
			}
			if m.Status.Ready() {
				want.DateDone = new("2026-11-26T10:20:30+00:00")
			} else {
				got.DateDone = nil // tables have one, so that a cleanup finds the row
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Go stored (-), Python reads (+):\n%s", diff)
			}
		})
	}
	for _, set := range sets {
		if !s.carries(c.Version, set) {
			continue
		}
		c.Cell(t, "stored values "+set.name, func(t *testing.T) {
			if err := b.Store(within(t), []*protocol.ResultMeta{{TaskID: "go values " + set.name, Status: protocol.Success, Result: set.args}}); err != nil {
				t.Fatal(err)
			}
			if answer := do(t, Command{Op: "outcome", ID: "go values " + set.name, Set: set.name}); !answer.Equal {
				t.Errorf("Python reads %s, want %s", answer.Got, answer.Want)
			}
		})
	}
}

// groups saves a group on one side and restores it on the other.
func (s store) groups(t *testing.T, c Crossing, b backends.GroupKeeper, do func(*testing.T, Command) Answer) {
	t.Helper()
	first := &protocol.ResultTuple{ID: "first"}
	group := protocol.ResultTuple{ID: "group", Parent: first, Children: []protocol.ResultTuple{
		{ID: "a"}, {ID: "b", Parent: first}, {ID: "inner", Children: []protocol.ResultTuple{{ID: "c"}, {ID: "d"}}},
	}}
	c.To(GoToPython).Cell(t, "a saved group", func(t *testing.T) {
		if err := b.SaveGroup(within(t), &group); err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(do(t, Command{Op: "restore", ID: group.ID}).Value, &v); err != nil {
			t.Fatal(err)
		}
		back, err := protocol.ResultTupleFromValue(v)
		if diff := cmp.Diff(group, back); diff != "" || err != nil {
			t.Errorf("Go saved (-), Python restores (+): %v\n%s", err, diff)
		}
		do(t, Command{Op: "delete", ID: group.ID})
		if left, err := b.LoadGroup(within(t), group.ID); left != nil || err != nil {
			t.Errorf("what Python has deleted is %v, %v", left, err)
		}
	})
	c.To(PythonToGo).Cell(t, "a saved group", func(t *testing.T) {
		do(t, Command{Op: "save", Tuple: group.Value()})
		back, err := b.LoadGroup(within(t), group.ID)
		want := group
		if s.pickles { // which leave it out
			want.Parent = nil
		}
		if diff := cmp.Diff(&want, back); diff != "" || err != nil {
			t.Errorf("Python saved (-), Go restores (+): %v\n%s", err, diff)
		}
		if err := b.ForgetGroup(within(t), group.ID); err != nil {
			t.Fatal(err)
		}
		if v := do(t, Command{Op: "restore", ID: group.ID}).Value; string(v) != "null" {
			t.Errorf("what Go has forgotten is restored as %s", v)
		}
	})
}

// cleanup lets either side remove what the other has stored.
func (s store) cleanup(t *testing.T, c Crossing, b backends.Backend, do func(*testing.T, Command) Answer) {
	t.Helper()
	c.To(PythonToGo).Cell(t, "cleanup", func(t *testing.T) {
		do(t, Command{Op: "keep", ID: "py", Args: []any{"success"}})
		if err := b.(backends.Cleaner).Cleanup(within(t)); err != nil {
			t.Fatal(err)
		}
		if answer := do(t, Command{Op: "outcome", ID: "py"}); answer.State != "PENDING" {
			t.Errorf("Go's cleanup leaves Python a %s", answer.State)
		}
	})
	c.To(GoToPython).Cell(t, "cleanup", func(t *testing.T) {
		done := time.Now().Add(-time.Minute)
		if err := b.Store(within(t), []*protocol.ResultMeta{{TaskID: "go", Status: protocol.Success, DateDone: done}}); err != nil {
			t.Fatal(err)
		}
		do(t, Command{Op: "cleanup"})
		if m, err := b.Get(within(t), "go"); err != nil || m.Status != protocol.Pending {
			t.Errorf("Python's cleanup leaves Go %v, %v", m, err)
		}
	})
}
