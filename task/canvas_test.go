package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
)

// TestSignatureValues: a signature that was changed is another one, and what is wrong with one is told when it is sent.
func TestSignatureValues(t *testing.T) {
	t.Parallel()
	a := S("t.a", 1)
	before := a.String()
	for _, changed := range []Signature{a.Args(5), a.Kwargs(map[string]any{"k": 1}), a.With(Queue("q")), a.Immutable(), a.Link(a), a.StampAll(map[string]any{"s": 1}),
		Chain(a, a).LinkError(a), Group(a, a).Immutable(), Chord(Group(a), a).Immutable()} {
		if err := changed.Err(); err != nil {
			t.Error(err)
		}
	}
	if wire, _ := a.Wire(); a.String() != before || len(wire.Options) > 0 || len(wire.Kwargs) > 0 || wire.Immutable {
		t.Errorf("%v was changed: %+v", a, wire)
	}
	if got := Chord(Group(a, Chain(a.Args(2), S("t.b").Kwargs(map[string]any{"x": "y"}))), a).String(); got != "chord(group([t.a(1), t.a(2, 1) | t.b(x='y')]), t.a(1))" {
		t.Error(got)
	}
	text, err := json.Marshal(add.S(addArgs{1, 2}, Queue("q")))
	const want = `{"args":[1,2],"immutable":false,"kwargs":{},"options":{"queue":"q"},"subtask_type":null,"task":"tasks.add"}`
	var plain any
	if err != nil || json.Unmarshal(text, &plain) != nil {
		t.Fatal(err)
	}
	if again, _ := json.Marshal(plain); string(again) != want {
		t.Errorf("%s, expected %s", again, want)
	}
	client, p := probeClient(t, Config{})
	for name, bad := range map[string]Signature{
		"zero": {}, "argument": S("t", make(chan int)), "option": S("t").With(Priority(-1)), "chain": Chain(), "in a chain": Chain(a, Signature{}),
		"in a group": Group(a, S("t", make(chan int))), "chunks": Chunks(a, 0, 1), "callback": a.Link(Signature{}), "chord without results": Chord(Group(a), a),
	} {
		if _, err := client.Apply(t.Context(), bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if len(p.published) > 0 {
		t.Errorf("%d messages were sent", len(p.published))
	}
	if _, err := client.Apply(t.Context(), Chord(Group(a), a)); !errors.Is(err, ErrNoChords) {
		t.Errorf("chord: %v", err)
	}
}

// TestChunks: chunks are a group of starmaps, which go where the task goes that they call.
func TestChunks(t *testing.T) {
	t.Parallel()
	client, p := probeClient(t, Config{Routes: []Route{{Task: "t.a", Options: []Option{Queue("far")}}}})
	r, err := client.Apply(t.Context(), Chunks(S("t.a"), 2, []int{1, 2}, []int{3, 4}, []int{5, 6}))
	if err != nil {
		t.Fatal(err)
	}
	if g, ok := r.Group(); !ok || len(g.Results()) != 2 {
		t.Errorf("the result is %+v", r)
	}
	if len(p.published) != 1 || len(p.published[0]) != 2 {
		t.Fatalf("%d batches", len(p.published))
	}
	if request, pub := p.last(t); request.Task != "celery.starmap" || pub.RoutingKey != "far" || len(request.Kwargs["it"].([]any)) != 1 {
		t.Errorf("the last message is %+v for %s", request, pub.RoutingKey)
	}
}

// TestStamps: a visitor's stamps reach all tasks of a workflow, in the options of their own names.
func TestStamps(t *testing.T) {
	t.Parallel()
	named := func(stamp string) func(Signature) map[string]any {
		return func(s Signature) map[string]any { return map[string]any{stamp: s.Name()} }
	}
	v := StampingVisitor{Signature: named("task"), Chain: named("chain"), Group: named("group"), ChordHeader: named("header"), ChordBody: named("body"),
		Callback: named("callback"), Errback: named("errback")}
	sig := Chain(S("a").With(Stamp("all", "own")), Group(S("b"), S("c").Link(S("l")).LinkError(S("e"))), Chord(Group(S("d")), S("f"))).Stamp(v, map[string]any{"all": 1})
	text, err := json.Marshal(sig)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, item := range v {
				walk(item)
			}
		case map[string]any:
			if options, ok := v["options"].(map[string]any); ok && options["stamped_headers"] != nil {
				var all []string
				for _, name := range options["stamped_headers"].([]any) {
					all = append(all, fmt.Sprint(name, "=", options[name.(string)]))
				}
				slices.Sort(all)
				got[v["task"].(string)] = strings.Join(all, " ")
			}
			for _, item := range v {
				walk(item)
			}
		}
	}
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		t.Fatal(err)
	}
	walk(plain)
	for name, want := range map[string]string{
		"a": "all=own chain=celery.chain task=a",
		"b": "all=1 chain=celery.chain group=celery.group task=b",
		"c": "all=1 chain=celery.chain group=celery.group task=c",
		"l": "all=1 callback=l chain=celery.chain group=celery.group task=l",
		"e": "all=1 chain=celery.chain errback=e group=celery.group task=e",
		"d": "all=1 chain=celery.chain header=celery.group task=d",
		"f": "all=1 body=f chain=celery.chain task=f",
	} {
		if got[name] != want {
			t.Errorf("%s has %q, expected %q", name, got[name], want)
		}
	}
}

// TestApplyGroup sends a group whose members are made as it goes.
func TestApplyGroup(t *testing.T) {
	t.Parallel()
	client, p := probeClient(t, Config{})
	const n = 2*applyBatch + 5
	members := func(n int, last Signature) iter.Seq[Signature] {
		return func(yield func(Signature) bool) {
			for i := range n {
				if !yield(S("t.a", i)) {
					return
				}
			}
			yield(last)
		}
	}
	g, err := client.ApplyGroup(t.Context(), members(n-1, Chain(S("t.b"), S("t.c"))), Queue("q"))
	if err != nil || len(g.Results()) != n {
		t.Fatalf("%v, %d members", err, len(g.Results()))
	}
	if r, pub := p.last(t); r.Task != "t.b" || len(r.Embed.Chain) != 1 || pub.RoutingKey != "q" || r.Embed.Chain[0].Options["group_index"] != int64(n-1) {
		t.Errorf("the last message is %+v", r)
	}
	g, err = client.ApplyGroup(t.Context(), members(applyBatch, Signature{}))
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint("member ", applyBatch)) || len(g.Results()) != applyBatch {
		t.Errorf("%v, %d members; expected those before the one that is none", err, len(g.Results()))
	}
}
