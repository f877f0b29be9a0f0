package task

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
)

// pythonStruct turns the parameter list of a Python function into the struct a Go user would write for it.
func pythonStruct(t *testing.T, sig string) reflect.Type {
	t.Helper()
	var fields []reflect.StructField
	add := func(typ reflect.Type, tag string) {
		fields = append(fields, reflect.StructField{
			Name: fmt.Sprintf("F%d", len(fields)), Type: typ, Tag: reflect.StructTag(`task:"` + tag + `"`),
		})
	}
	kwonly := ""
	for part := range strings.SplitSeq(sig, ", ") {
		name, def, optional := strings.Cut(part, "=")
		switch {
		case part == "":
		case part == "/":
			for i := range fields {
				fields[i].Tag = reflect.StructTag(strings.TrimSuffix(string(fields[i].Tag), `"`) + `,posonly"`)
			}
		case part == "*":
			kwonly = ",kwonly"
		case strings.HasPrefix(part, "**"):
			add(reflect.TypeFor[map[string]any](), part[2:]+",remain")
		case strings.HasPrefix(part, "*"):
			add(reflect.TypeFor[[]int](), part[1:]+",varargs")
		case optional:
			add(reflect.TypeFor[int](), name+",default="+def+kwonly)
		default:
			add(reflect.TypeFor[int](), name+kwonly)
		}
	}
	return reflect.StructOf(fields)
}

// TestBindLikePython holds the binding against what Python 3.11 did with the same calls (testdata/bind.py).
func TestBindLikePython(t *testing.T) {
	t.Parallel()
	file, err := os.Open("testdata/bind.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	failures, successes := 0, 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		v, err := serialization.DecodeJSON(lines.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		line := v.(map[string]any)
		sig, want := line["sig"].(string), line["error"]
		p, err := structPlan("tasks.f", pythonStruct(t, sig))
		if err != nil {
			t.Fatalf("def f(%s): %v", sig, err)
		}
		args, kwargs := line["args"].([]any), line["kwargs"].(map[string]any)
		dst := reflect.New(pythonStruct(t, sig)).Elem()
		err = p.bind(dst, args, kwargs)
		if want != nil {
			failures++
			if err == nil || err.Error() != want {
				t.Errorf("def f(%s) called with %v %v:\n got %v\nwant %v", sig, args, kwargs, err, want)
			}
			continue
		}
		successes++
		if err != nil {
			t.Errorf("def f(%s) called with %v %v: %v", sig, args, kwargs, err)
			continue
		}
		// What was bound, read by the names Python has them under.
		got := map[string]any{}
		fields, err := value.Fields(dst.Type())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range fields {
			if got[f.Name], err = value.Of(dst.FieldByIndex(f.Index).Interface()); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(line["bound"], any(got)); diff != "" {
			t.Errorf("def f(%s) called with %v %v:\n%s", sig, args, kwargs, diff)
		}
	}
	if failures < 100 || successes < 100 {
		t.Errorf("the goldens have %d failures and %d successes, too few to mean something", failures, successes)
	}
}

// TestBindErrors pins one text of each kind, as Python 3.11 gives them.
func TestBindErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		sig    string
		args   []any
		kwargs map[string]any
		want   string
	}{
		{"x, y", nil, nil, "add() missing 2 required positional arguments: 'x' and 'y'"},
		{"x, y", []any{1}, nil, "add() missing 1 required positional argument: 'y'"},
		{"x, y, z", nil, nil, "add() missing 3 required positional arguments: 'x', 'y', and 'z'"},
		{"x, y", []any{1, 2, 3}, nil, "add() takes 2 positional arguments but 3 were given"},
		{"x, y=2", []any{1, 2, 3}, nil, "add() takes from 1 to 2 positional arguments but 3 were given"},
		{"x=1", []any{1, 2}, nil, "add() takes from 0 to 1 positional arguments but 2 were given"},
		{"", []any{1}, nil, "add() takes 0 positional arguments but 1 was given"},
		{"x, *, k=1", []any{1, 2}, map[string]any{"k": 3}, "add() takes 1 positional argument but 2 positional arguments (and 1 keyword-only argument) were given"},
		{"x, y", []any{1}, map[string]any{"x": 2}, "add() got multiple values for argument 'x'"},
		{"x, y", []any{1, 2}, map[string]any{"z": 3}, "add() got an unexpected keyword argument 'z'"},
		{"x, *, k, l, m", []any{1}, nil, "add() missing 3 required keyword-only arguments: 'k', 'l', and 'm'"},
		{"x, *, k", []any{1}, nil, "add() missing 1 required keyword-only argument: 'k'"},
		{"x, y, /, z", nil, map[string]any{"x": 1, "y": 2, "z": 3}, "add() got some positional-only arguments passed as keyword arguments: 'x, y'"},
		{"x, /, **kw", nil, map[string]any{"x": 1}, "add() missing 1 required positional argument: 'x'"},
		// A value of the wrong type is named by its path, but only when the call as a whole is right.
		{"x, y", []any{"5", int64(1)}, nil, `add() argument x: expected int, got str "5"`},
		{"x, y", []any{"5"}, nil, "add() missing 1 required positional argument: 'y'"},
		{"x, *rest", []any{int64(1), int64(2), nil}, nil, "add() argument rest[1]: expected int, got None"},
	}
	for _, tt := range tests {
		t.Run(tt.sig+" "+tt.want, func(t *testing.T) {
			t.Parallel()
			p, err := structPlan("tasks.add", pythonStruct(t, tt.sig))
			if err != nil {
				t.Fatal(err)
			}
			// Numbers as the serializers give them.
			for i, a := range tt.args {
				if tt.args[i], err = value.Of(a); err != nil {
					t.Fatal(err)
				}
			}
			err = p.bind(reflect.New(pythonStruct(t, tt.sig)).Elem(), tt.args, tt.kwargs)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			var bind *BindError
			if !errors.As(err, &bind) || !errors.Is(err, PyError("TypeError")) {
				t.Errorf("%T is not a TypeError", err)
			}
		})
	}
}

type everything struct {
	ID       string         `task:"id,posonly"`
	UserID   int            // user_id
	Amount   value.Decimal  `task:"amount,default=1.50"`
	Tags     []string       `task:"tags,default=None"`
	Note     *string        `task:"note,default=None"`
	Mode     string         `task:"mode,default=fast"`
	Extra    []int          `task:",varargs"`
	DryRun   bool           `task:"dry_run,default=True"` // keyword-only, as it follows *args
	Wait     time.Duration  `task:"wait,kwonly,default=2.5"`
	Rest     map[string]any `task:",remain"`
	Internal int            `task:"-"`
}

func TestBindDefaults(t *testing.T) {
	t.Parallel()
	def := Define[everything, any]("shop.tasks.charge")
	got, err := def.Bind([]any{"a"}, map[string]any{"user_id": int64(7), "color": "red", "id": "kept"})
	if err != nil {
		t.Fatal(err)
	}
	want := everything{
		ID: "a", UserID: 7, Amount: "1.50", Mode: "fast", DryRun: true, Wait: 2500 * time.Millisecond,
		Rest: map[string]any{"color": "red", "id": "kept"}, // id is positional-only: the name is free
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestBindRoundTrip: what Arguments writes, Bind reads.
func TestBindRoundTrip(t *testing.T) {
	t.Parallel()
	def := Define[everything, any]("shop.tasks.charge")
	note := "n"
	want := everything{
		ID: "a", UserID: 7, Amount: "3", Tags: []string{"x"}, Note: &note, Mode: "slow", Extra: []int{1, 2},
		Wait: time.Second, Rest: map[string]any{"k": "v"},
	}
	args, kwargs := def.Arguments(want)
	if len(args) != 8 || len(kwargs) != 3 {
		t.Errorf("got %d args and %d kwargs, want 8 and 3: %v %v", len(args), len(kwargs), args, kwargs)
	}
	for i := range args {
		v, err := value.Of(args[i])
		if err != nil {
			t.Fatal(err)
		}
		args[i] = v
	}
	kwargs["wait"] = 1.0
	got, err := def.Bind(args, kwargs)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestBindDefaultIsFresh: Python's famous trap, a default shared by all calls, is not ours.
func TestBindDefaultIsFresh(t *testing.T) {
	t.Parallel()
	type args struct {
		Items []int `task:"items,default=[7]"`
		Any   any   `task:"any,default={}"`
	}
	def := Define[args, any]("t")
	first, err := def.Bind(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	first.Items[0] = 1
	first.Any.(map[string]any)["k"] = 1
	second, err := def.Bind(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if second.Items[0] != 7 || len(second.Any.(map[string]any)) != 0 {
		t.Errorf("the second call sees the first one's changes: %v", second)
	}
}

// TestBindEmbedded: the fields of an embedded struct are parameters in its place.
func TestBindEmbedded(t *testing.T) {
	t.Parallel()
	type Common struct{ Tenant string }
	type args struct {
		Common
		hidden string
		ID     int
	}
	def := Define[args, any]("t")
	got, err := def.Bind([]any{"a"}, map[string]any{"id": int64(1)})
	if err != nil || got.Tenant != "a" || got.ID != 1 || got.hidden != "" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := TryDefine[struct{ *Common }, any]("t"); err == nil || !strings.Contains(err.Error(), "embedded pointer") {
		t.Errorf("got %v", err)
	}
}

func TestLenient(t *testing.T) {
	t.Parallel()
	type args struct{ X int }
	def := Define[args, any]("t", Lenient())
	got, err := def.Bind(nil, map[string]any{"x": int64(1), "new": true})
	if err != nil || got.X != 1 {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := def.Bind([]any{int64(1), int64(2)}, nil); err == nil {
		t.Error("lenient is for keywords only")
	}
}

func TestRaw(t *testing.T) {
	t.Parallel()
	echo := Define[Raw, Raw]("echo")
	d := echo.Definition(func(_ context.Context, r Raw) (Raw, error) { return r, nil })
	got, err := d.Handler(t.Context(), &protocol.Request{Args: []any{"a"}, Kwargs: map[string]any{"k": nil}})
	if diff := cmp.Diff(Raw{Args: []any{"a"}, Kwargs: map[string]any{"k": nil}}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	args, kwargs := echo.Arguments(Raw{Args: []any{1}})
	if len(args) != 1 || kwargs != nil {
		t.Errorf("got %v, %v", args, kwargs)
	}
}

func TestDefineRefuses(t *testing.T) {
	t.Parallel()
	refuse := func(name, want string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", name, err, want)
		}
	}
	_, err := TryDefine[int, any]("t")
	refuse("no struct", "a struct", err)
	_, err = TryDefine[struct{ C chan int }, any]("t")
	refuse("channel", `parameter "c"`, err)
	_, err = TryDefine[struct {
		A int `task:"a,default=1"`
		B int
	}, any]("t")
	refuse("order", "without a default", err)
	_, err = TryDefine[struct {
		A int
		B int `task:"b,posonly"`
	}, any]("t")
	refuse("posonly", "positional-only", err)
	_, err = TryDefine[struct {
		A int `task:"a,default=x"`
	}, any]("t")
	refuse("bad default", `default "x"`, err)
	_, err = TryDefine[struct {
		A []string `task:",remain"`
	}, any]("t")
	refuse("remain type", "map[string]any", err)
	_, err = TryDefine[struct {
		A int `task:"a,kwnoly"`
	}, any]("t")
	refuse("typo", "kwnoly", err)
	_, err = TryDefine[struct {
		A int `task:"x"`
		B int `task:"x"`
	}, any]("t")
	refuse("same name", `"x"`, err)
	_, err = TryDefine[NoArgs, any]("")
	refuse("no name", "name", err)
	_, err = TryDefine[NoArgs, any]("t", Priority(256))
	refuse("priority", "Priority(256)", err)
	_, err = TryDefine[NoArgs, any]("t", TimeLimit(time.Second), SoftTimeLimit(time.Minute))
	refuse("limits", "longer", err)
	_, err = TryDefine[NoArgs, any]("t", Params("x"))
	refuse("params", "Func", err)
	defer func() {
		if recover() == nil {
			t.Error("Define does not panic")
		}
	}()
	Define[int, any]("t")
}

// TestNoResult: a task that returns nothing stores None, not an empty dict.
func TestNoResult(t *testing.T) {
	t.Parallel()
	h := Define[NoArgs, NoResult]("t").Handler(func(context.Context, NoArgs) (NoResult, error) { return NoResult{}, nil })
	if got, err := h(t.Context(), &protocol.Request{}); got != nil || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func FuzzBind(f *testing.F) {
	f.Add(`["a",1]`, `{"user_id":2}`)
	f.Add(`["a",1,"2.5",["x"],null,"m",1,2]`, `{"wait":1,"dry_run":false,"z":{}}`)
	f.Add(`[]`, `{"id":1}`)
	def := Define[everything, any]("shop.tasks.charge")
	f.Fuzz(func(t *testing.T, args, kwargs string) {
		a, err1 := serialization.DecodeJSON([]byte(args))
		k, err2 := serialization.DecodeJSON([]byte(kwargs))
		list, ok1 := a.([]any)
		dict, ok2 := k.(map[string]any)
		if err1 != nil || err2 != nil || !ok1 || !ok2 {
			t.Skip()
		}
		got, err := def.Bind(list, dict)
		if err != nil {
			var bind *BindError
			if !errors.As(err, &bind) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		if def.plan.check(list, dict) != nil {
			t.Fatalf("bound what the call rules forbid: %s %s", args, kwargs)
		}
		// Every keyword went somewhere, and none twice.
		if got.ID != list[0] {
			t.Fatalf("id is %v, not %v", got.ID, list[0])
		}
		for name, v := range dict {
			i, known := def.plan.byName[name]
			rest, inRest := got.Rest[name]
			if free := !known || i < def.plan.posonly; free != inRest {
				t.Fatalf("keyword %q: free %v, in the rest %v", name, free, inRest)
			}
			if inRest && !reflect.DeepEqual(rest, v) {
				if f, ok := v.(float64); !ok || f == f {
					t.Fatalf("keyword %q: %v became %v", name, v, rest)
				}
			}
		}
	})
}

func BenchmarkBind(b *testing.B) {
	type addArgs struct{ X, Y int }
	def := Define[addArgs, int]("add")
	args := []any{int64(1), int64(2)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := def.Bind(args, nil); err != nil {
			b.Fatal(err)
		}
	}
}
