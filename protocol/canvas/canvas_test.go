package canvas

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/gelery/gelery/protocol"
)

// ids numbers what has no id: i1, i2, …
func ids() func() string {
	n := 0
	return func() string { n++; return fmt.Sprint("i", n) }
}

func s(name string, args ...any) protocol.Signature {
	return protocol.Signature{Task: name, Args: args, Kwargs: map[string]any{}, Options: map[string]any{}}
}

func with(sig protocol.Signature, options ...any) protocol.Signature {
	override(&sig, map[string]any{})
	for i := 0; i < len(options); i += 2 {
		sig.Options[options[i].(string)] = options[i+1]
	}
	return sig
}

func chain(steps ...protocol.Signature) protocol.Signature { return ChainOf(steps) }

func group(members ...protocol.Signature) protocol.Signature {
	return protocol.Signature{Task: groupTask, SubtaskType: "group", Options: map[string]any{}, Kwargs: map[string]any{"tasks": values(members)}}
}

func chord(header, body protocol.Signature) protocol.Signature {
	return protocol.Signature{Task: chordTask, SubtaskType: "chord", Options: map[string]any{}, Kwargs: chordKwargs(&header, &body)}
}

// text writes a signature shortly: a(1)#id {group/index} chain[…] chord[…].
func text(sig protocol.Signature) string {
	var b strings.Builder
	switch Kind(&sig) {
	case "chain", "group":
		all, _ := inner("", sig.Kwargs["tasks"])
		b.WriteString(Kind(&sig) + "[")
		for i := range all {
			b.WriteString(" " + text(all[i]))
		}
		b.WriteString(" ]")
	case "chord":
		header, body, _ := parts(&sig)
		b.WriteString("chord[ " + text(header) + " | " + text(body) + " ]")
	default:
		b.WriteString(sig.Task)
		if len(sig.Args) > 0 {
			b.WriteString(strings.Trim(fmt.Sprint(sig.Args), " "))
		}
	}
	o := sig.Options
	if id := o["task_id"]; id != nil {
		fmt.Fprintf(&b, "#%v", id)
	}
	if g := o["group_id"]; g != nil {
		fmt.Fprintf(&b, "{%v", g)
		if i := o["group_index"]; i != nil {
			fmt.Fprintf(&b, "/%v", i)
		}
		b.WriteString("}")
	}
	for _, name := range []string{"chain", "link", "link_error"} {
		if o[name] != nil {
			b.WriteString(" " + name + "[")
			for _, v := range listOf(o[name]) {
				sig, err := protocol.SignatureFromValue(v)
				if err != nil {
					b.WriteString(err.Error())
				}
				b.WriteString(" " + text(sig))
			}
			b.WriteString(" ]")
		}
	}
	if o["chord"] != nil {
		body, _ := protocol.SignatureFromValue(o["chord"])
		b.WriteString(" chord:" + text(body))
	}
	return b.String()
}

func tuple(t *protocol.ResultTuple) string {
	b := t.ID
	if t.Children != nil {
		b += "["
		for i := range t.Children {
			b += " " + tuple(&t.Children[i])
		}
		b += " ]"
	}
	if t.Parent != nil {
		b += " < " + tuple(t.Parent)
	}
	return b
}

func TestExpand(t *testing.T) {
	body := with(s("body"), "task_id", "b")
	cases := []struct {
		name   string
		sig    protocol.Signature
		args   []any
		tasks  []string
		chords []string
		result string
	}{
		{"task", s("a", int64(1)), nil, []string{"a[1]#i1"}, nil, "i1"},
		{"task with a result before its arguments", s("a", int64(1)), []any{int64(9)}, []string{"a[9 1]#i1"}, nil, "i1"},
		{"chain", chain(s("a"), s("b"), s("c")), []any{int64(1)},
			[]string{"a[1]#i1 chain[ c#i3 b#i2 ]"}, nil, "i3 < i2 < i1"},
		{"chain in a chain", chain(s("a"), chain(s("b"), s("c")), s("d")), nil,
			[]string{"a#i1 chain[ d#i4 c#i3 b#i2 ]"}, nil, "i4 < i3 < i2 < i1"},
		{"chain of one", chain(with(s("a"), "queue", "q")), nil, []string{"a#i1"}, nil, "i1"},
		{"chain that something follows by its options", with(chain(s("a"), s("b")), "chain", values([]protocol.Signature{s("d"), s("c")})), nil,
			[]string{"a#i1 chain[ d c b#i2 ]"}, nil, "i2 < i1"},
		{"chain of one that something follows", with(chain(with(s("a"), "chain", values([]protocol.Signature{s("b")}))), "chain", values([]protocol.Signature{s("c")})), nil,
			[]string{"a#i1 chain[ c b ]"}, nil, "i1"},
		{"chord that something follows", with(chord(group(s("a")), body), "chain", values([]protocol.Signature{s("c")})), nil,
			[]string{"a#i2{i1/0} chord:body#b{i1} chain[ c ]"}, []string{"i1=1"}, "b < i1[ i2 ]"},
		{"ends of a chain", with(chain(s("a"), s("b")), "task_id", "end", "link", values([]protocol.Signature{s("l")}),
			"link_error", values([]protocol.Signature{s("e")})), nil,
			[]string{"a#i1 chain[ b#end link[ l ] link_error[ e ] ] link_error[ e ]"}, nil, "end < i1"},
		{"group", group(s("a"), group(s("b"), s("c")), s("d")), []any{int64(1)},
			[]string{"a[1]#i2{i1/0}", "b[1]#i3{i1/1}", "c[1]#i4{i1/2}", "d[1]#i5{i1/3}"}, nil, "i1[ i2 i3 i4 i5 ]"},
		{"callbacks of a group", with(group(s("a"), s("b")), "link_error", values([]protocol.Signature{s("e")}), "link", values([]protocol.Signature{s("l")})), nil,
			[]string{"a#i2{i1/0} link[ l ] link_error[ e ]", "b#i3{i1/1} link_error[ e ]"}, nil, "i1[ i2 i3 ]"},
		{"chord", chord(group(s("a"), s("b")), body), nil,
			[]string{"a#i2{i1/0} chord:body#b{i1}", "b#i3{i1/1} chord:body#b{i1}"}, []string{"i1=2"}, "b < i1[ i2 i3 ]"},
		{"chord without parts", chord(group(), body), []any{int64(1)}, []string{"body[[]]#b{i1}"}, nil, "b < i1[ ]"},
		{"group before a task", chain(group(s("a"), s("b")), s("c")), nil,
			[]string{"a#i3{i1/0} chord:c#i2{i1}", "b#i4{i1/1} chord:c#i2{i1}"}, []string{"i1=2"}, "i2 < i1[ i3 i4 ]"},
		{"group of one before a task", chain(group(s("a")), s("c")), nil, []string{"a#i1 chain[ c#i2 ]"}, nil, "i2 < i1"},
		{"task, group, task", chain(s("a"), group(s("b"), s("c")), s("d")), nil,
			[]string{"a#i1 chain[ chord[ group[ b#i4 c#i5 ]#i2 | d#i3{i2} ]#i2 ]"}, nil, "i3 < i2[ i4 i5 ] < i1"},
		{"task for a chord", with(chord(group(s("a")), s("b")), "task_id", "end"), nil, []string{"a#i2{i1/0} chord:b#end{i1}"}, []string{"i1=1"}, "end < i1[ i2 ]"},
		{"chord as Celery freezes it", with(chord(group(s("a")), body), "task_id", "g"), nil, []string{"a#i1{g/0} chord:body#b{g}"}, []string{"g=1"}, "b < g[ i1 ]"},
		{"chord before a task", chain(chord(group(s("a"), s("b")), s("c")), s("d")), nil,
			[]string{"a#i4{i1/0} chord:chain[ c#i2 d#i3{i1} ]#i3", "b#i5{i1/1} chord:chain[ c#i2 d#i3{i1} ]#i3"}, []string{"i1=2"},
			"i3 < i2 < i1[ i4 i5 ]"},
		{"chain in a header", chord(group(chain(s("a"), s("b")), s("c")), body), nil,
			[]string{"a#i2 chain[ b#i3{i1/0} chord:body#b{i1} ]", "c#i4{i1/1} chord:body#b{i1}"}, []string{"i1=2"}, "b < i1[ i3 < i2 i4 ]"},
		{"chord in a header", chord(group(chord(group(s("a"), s("b")), s("c")), s("d")), body), nil,
			[]string{"a#i4{i2/0} chord:c#i3{i1/0} chord:body#b{i1}", "b#i5{i2/1} chord:c#i3{i1/0} chord:body#b{i1}", "d#i6{i1/1} chord:body#b{i1}"},
			[]string{"i1=2", "i2=2"}, "b < i1[ i3 < i2[ i4 i5 ] i6 ]"},
		{"group at the end of a chain in a header", chord(group(chain(s("a"), group(s("b"), s("c"))), s("d")), body), nil,
			[]string{"a#i2 chain[ group[ b#00000001-i4{i1/0} chord:body#b{i1} c#00000002-i4{i1/0} chord:body#b{i1} ]#i3 ]", "d#i5{i1/1} chord:body#b{i1}"},
			[]string{"i1=3"}, "b < i1[ i3[ 00000001-i4 00000002-i4 ] < i2 i5 ]"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before, _ := json.Marshal(c.sig.Value())
			x, err := Expand(c.sig, Origin{Args: c.args, NewID: ids()})
			if err != nil {
				t.Fatal(err)
			}
			var tasks, chords []string
			for _, task := range x.Tasks {
				tasks = append(tasks, text(task))
			}
			for _, c := range x.Chords {
				chords = append(chords, fmt.Sprint(c.ID, "=", c.Size))
			}
			if !reflect.DeepEqual(tasks, c.tasks) {
				t.Errorf("tasks\n%q, expected\n%q", tasks, c.tasks)
			}
			if !reflect.DeepEqual(chords, c.chords) {
				t.Errorf("chords %q, expected %q", chords, c.chords)
			}
			if r := tuple(&x.Result); r != c.result {
				t.Errorf("result %s, expected %s", r, c.result)
			}
			if after, _ := json.Marshal(c.sig.Value()); string(after) != string(before) {
				t.Errorf("the signature was changed:\n%s\n%s", before, after)
			}
			// What is frozen stays as it is.
			frozen, r, err := Freeze(c.sig, "", Origin{NewID: ids()})
			if err != nil {
				t.Fatal(err)
			}
			again, r2, err := Freeze(frozen, "other", Origin{})
			if err != nil || text(again) != text(frozen) || tuple(&r) != tuple(&r2) {
				t.Errorf("frozen again: %v\n%s %s\n%s %s", err, text(frozen), tuple(&r), text(again), tuple(&r2))
			}
		})
	}
}

// TestBounds: what nests without end, or is none, is an error.
func TestBounds(t *testing.T) {
	endless := map[string]any{"task": chainTask, "subtask_type": "chain", "kwargs": map[string]any{}}
	endless["kwargs"].(map[string]any)["tasks"] = []any{s("a").Value(), endless}
	loop, err := protocol.SignatureFromValue(endless)
	if err != nil {
		t.Fatal(err)
	}
	wide := s("a")
	for range 40 { // 2 to the 40th members
		wide = group(wide, wide)
	}
	deep := s("a")
	for range maxDepth {
		deep = chord(group(deep, s("b")), s("c"))
	}
	for name, sig := range map[string]protocol.Signature{
		"chain that contains itself": loop, "too deep": deep, "too many": wide,
		"empty chain":               chain(),
		"no tasks":                  {Task: groupTask, SubtaskType: "group"},
		"body missing":              {Task: chordTask, SubtaskType: "chord", Kwargs: map[string]any{"header": []any{}}},
		"not a signature":           {Task: chainTask, SubtaskType: "chain", Kwargs: map[string]any{"tasks": []any{int64(1)}}},
		"header is not a signature": {Task: chordTask, SubtaskType: "chord", Kwargs: map[string]any{"header": int64(1), "body": s("b").Value()}},
		"chunks of nothing":         {Task: chunksTask, Kwargs: map[string]any{"task": s("a").Value(), "it": []any{}, "n": int64(0)}},
	} {
		if _, err := Expand(sig, Origin{}); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	nested := s("last")
	for range 25 {
		nested = chord(group(s("a"), s("b")), nested)
	}
	x, err := Expand(nested, Origin{})
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := json.Marshal(x.Tasks[0].Value()); len(text) > 30_000 {
		t.Errorf("a task of 25 nested chords is %d bytes long", len(text))
	}
}

func TestLost(t *testing.T) {
	outer := chord(group(chain(s("a"), chord(group(s("b"), s("c")), s("d"))), s("e")), with(s("body"), "task_id", "body"))
	x, err := Expand(outer, Origin{NewID: ids()})
	if err != nil {
		t.Fatal(err)
	}
	rest, err := inner("", x.Tasks[0].Options["chain"])
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range Lost(rest[0]) {
		told := l.ID
		if l.Chord != nil {
			told += fmt.Sprint(" of ", l.Group, "/", *l.Index, " for ", l.Chord.Options["task_id"])
		}
		got = append(got, told)
	}
	if want := []string{"i5", "i6", "i4 of i1/0 for body"}; !reflect.DeepEqual(got, want) {
		t.Errorf("lost %q, expected %q", got, want)
	}
}

// TestHeaderErrbacks: with task_allow_error_cb_on_chord_header the error callbacks of a chord are called for its parts too, without
// the id of the part before their arguments.
func TestHeaderErrbacks(t *testing.T) {
	explicit := with(chord(group(s("a"), chain(s("b"), s("c"))), s("body")), "link_error", []any{s("alarm").Value()})
	for name, sig := range map[string]protocol.Signature{
		"chord":            explicit,
		"group and a task": with(chain(group(s("a"), chain(s("b"), s("c"))), s("body")), "link_error", []any{s("alarm").Value()}),
	} {
		for _, on := range []bool{false, true} {
			x, err := Expand(sig, Origin{NewID: ids(), HeaderErrbacks: on})
			if err != nil {
				t.Fatal(err)
			}
			for i := range x.Tasks {
				called := listOf(x.Tasks[i].Options["link_error"])
				if len(called) != map[bool]int{false: 0, true: 1}[on] {
					t.Errorf("%s, %v: %s has the error callbacks %v", name, on, x.Tasks[i].Task, called)
				} else if on && called[0].(map[string]any)["immutable"] != true {
					t.Errorf("%s: an error callback of a part takes its id", name)
				}
			}
			if body := Errbacks(&x.Chords[0].Body); len(body) != 1 {
				t.Errorf("%s, %v: the body has the error callbacks %v", name, on, body)
			}
		}
	}
}
