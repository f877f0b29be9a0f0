package task

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
)

// plant stores a tree: root has the children a and a group of b and c; a has d, c has d as well.
func plant(ctx context.Context, t *testing.T, c *Client) *Result[any] {
	t.Helper()
	for id, children := range map[string][]protocol.ResultTuple{
		"root": {tuple("a"), tuple("g", tuple("b"), tuple("c"))},
		"a":    {tuple("d")},
		"b":    nil,
		"c":    {tuple("d")},
		"d":    {tuple("d"), tuple("root")}, // which no worker stores
	} {
		m := succeeded(id, id+"!")
		m.Children = children
		store(ctx, t, c, m)
	}
	return c.Result("root")
}

func edges(ctx context.Context, r *Result[any], intermediate bool) (string, error) {
	var text strings.Builder
	for d, err := range r.IterDeps(ctx, intermediate) {
		if err != nil {
			return text.String(), err
		}
		if d.Parent != nil {
			text.WriteString(d.Parent.ID() + ">")
		}
		text.WriteString(d.Result.ID() + " ")
	}
	return text.String(), nil
}

func TestIterDeps(t *testing.T) {
	t.Parallel()
	ctx, client := dialMemory(t)
	root := plant(ctx, t, client)
	if got, err := edges(ctx, root, false); got != "root root>a root>g a>d g>b g>c d>d d>root c>d " || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	for range root.IterDeps(ctx, false) {
		break
	}
	same := Result[any](*groupOf[any](t, client, tuple("x", tuple("x", tuple("b")), tuple("x", tuple("e")))))
	store(ctx, t, client, succeeded("e", nil))
	if got, err := edges(ctx, &same, false); got != "x x>x x>x x>b x>e " || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	if err := client.Backend().Forget(ctx, "a", "c"); err != nil {
		t.Fatal(err)
	}
	if got, err := edges(ctx, root, false); got != "root root>a " || !errors.Is(err, ErrIncompleteStream) {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := edges(ctx, root, true); got != "root root>a root>g g>b g>c " || err != nil {
		t.Errorf("%s, %v", got, err)
	}
}

func TestCollect(t *testing.T) {
	t.Parallel()
	ctx, client := dialMemory(t)
	root := plant(ctx, t, client)
	if err := client.Backend().Forget(ctx, "a", "b", "d"); err != nil {
		t.Fatal(err)
	}
	// The last is waited for first, so that each is missing when its turn comes.
	last := succeeded("a", "a!")
	last.Children = []protocol.ResultTuple{tuple("d"), tuple("e")}
	defer whenWatched(ctx, t, client, "a", failedWith("d", "ValueError"), succeeded("e", nil), succeeded("b", "b!"), last)()
	var got []string
	for o, err := range root.Collect(ctx) {
		if !errors.Is(err, o.Err) || o.Index != len(got) {
			t.Fatalf("%v of %v", err, o)
		}
		got = append(got, fmt.Sprint(o.Result.ID(), " ", o.Value, " ", o.Err))
	}
	want := []string{"root root! <nil>", "a a! <nil>", "g [b! c!] <nil>", "d <nil> ValueError: d", "e <nil> <nil>",
		"b b! <nil>", "c c! <nil>", "d <nil> ValueError: d"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for range root.Collect(ctx) {
		break
	}
	for o, err := range client.Result("nobody").Collect(canceled(ctx)) {
		if o.Result != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("%v, %v", o, err)
		}
	}
}

func TestGraph(t *testing.T) {
	t.Parallel()
	ctx, client := dialMemory(t)
	root := plant(ctx, t, client)
	store(ctx, t, client, succeeded("b", nil))
	g, err := root.Graph(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	want := &Graph{Root: "root", Nodes: []GraphNode{{ID: "root"}, {ID: "a"}, {ID: "g", Group: true}, {ID: "d"}, {ID: "b"}, {ID: "c"}},
		Edges: []GraphEdge{{"root", "a"}, {"root", "g"}, {"a", "d"}, {"g", "b"}, {"g", "c"}, {"d", "d"}, {"d", "root"}, {"c", "d"}}}
	if diff := cmp.Diff(want, g); diff != "" {
		t.Error(diff)
	}
	var text strings.Builder
	small := &Graph{Root: `a"b`, Nodes: []GraphNode{{ID: `a"b`}, {ID: "g", Group: true}}, Edges: []GraphEdge{{`a"b`, "g"}}}
	if err := small.WriteDOT(&text); err != nil {
		t.Fatal(err)
	}
	if want := `digraph dependencies {
    root="a\"b"
    "a\"b" [shape=oval]
    "g" [shape=box]
    "a\"b" -> "g"
}
`; text.String() != want {
		t.Errorf("got %s", text.String())
	}
	if err := client.Backend().Forget(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	if _, err := root.Graph(ctx, false); !errors.Is(err, ErrIncompleteStream) {
		t.Errorf("got %v", err)
	}
	if g, err := root.Graph(ctx, true); err != nil || len(g.Nodes) != 6 {
		t.Errorf("%v, %v", g, err)
	}
}

func TestForgetTree(t *testing.T) {
	t.Parallel()
	ctx, client := dialMemory(t)
	plant(ctx, t, client)
	store(ctx, t, client, succeeded("last", nil))
	store(ctx, t, client, succeeded("other", nil))
	last, err := client.ResultFromTuple(protocol.ResultTuple{ID: "last", Parent: &protocol.ResultTuple{ID: "root"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := last.ForgetTree(ctx); err != nil {
		t.Fatal(err)
	}
	ids := []string{"root", "a", "b", "c", "d", "last", "other"}
	metas, err := client.Backend().GetMany(ctx, ids...)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(metas, func(m *protocol.ResultMeta) bool { return m.Status == protocol.Success })
	if i != len(ids)-1 {
		t.Errorf("%s is left", ids[i])
	}
}

// revoked returns the ids that are revoked while f runs, as a worker hears of them.
func revoked(ctx context.Context, t *testing.T, c *Client, f func() error) []any {
	t.Helper()
	workers, err := c.Transport().Subscribe(ctx, protocol.PidboxExchange, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = workers.Close() }()
	if err := f(); err != nil {
		t.Fatal(err)
	}
	d, err := workers.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	request, err := protocol.DecodePidbox(d.Message, serialization.Accept{})
	if err != nil || request.Method != "revoke" {
		t.Fatalf("heard %v, %v", request, err)
	}
	ids, _ := request.Arguments["task_id"].([]any)
	return ids
}

func TestRevokeTree(t *testing.T) {
	t.Parallel()
	ctx, client := dialMemory(t)
	plant(ctx, t, client)
	if err := client.Backend().Forget(ctx, "b", "d"); err != nil {
		t.Fatal(err)
	}
	last, err := client.ResultFromTuple(protocol.ResultTuple{ID: "last", Parent: &protocol.ResultTuple{ID: "root"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := revoked(ctx, t, client, func() error { return last.RevokeTree(ctx) }); !cmp.Equal([]any{"last", "d", "b"}, got) {
		t.Errorf("revoked %v", got)
	}
	g := groupOf[any](t, client, tuple("g", tuple("x"), tuple("h", tuple("y"))))
	if got := revoked(ctx, t, client, func() error { return g.Revoke(ctx) }); !cmp.Equal([]any{"x", "y"}, got) {
		t.Errorf("revoked %v", got)
	}
}
