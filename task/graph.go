package task

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
)

// Graph is a tree of results as nodes and edges: Celery's DependencyGraph.
type Graph struct {
	Root  string
	Nodes []GraphNode // each once, in the order of [Result.IterDeps]
	Edges []GraphEdge
}

// GraphNode is a task or a group.
type GraphNode struct {
	ID    string
	Group bool
}

// GraphEdge leads from a task or a group to one of its children.
type GraphEdge struct{ From, To string }

// Graph reads the tree of the result: Celery's AsyncResult.build_graph. With intermediate, tasks that are not done may be
// among it; else they are [ErrIncompleteStream].
func (h handle) Graph(ctx context.Context, intermediate bool) (*Graph, error) {
	g := &Graph{Root: h.id}
	known := map[string]struct{}{}
	for d, err := range h.IterDeps(ctx, intermediate) {
		if err != nil {
			return nil, err
		}
		if _, again := known[d.Result.id]; !again {
			known[d.Result.id] = struct{}{}
			g.Nodes = append(g.Nodes, GraphNode{ID: d.Result.id, Group: d.Result.members != nil})
		}
		if d.Parent != nil {
			g.Edges = append(g.Edges, GraphEdge{d.Parent.id, d.Result.id})
		}
	}
	return g, nil
}

// WriteDOT writes the graph in the language of Graphviz, a digraph named dependencies as Celery's to_dot writes, with groups
// as boxes:
//
//	g, err := result.Graph(ctx, false)
//	err = g.WriteDOT(os.Stdout) // | dot -Tsvg
func (g *Graph) WriteDOT(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "digraph dependencies {\n    root=%s\n", quoteDOT(g.Root))
	for _, n := range g.Nodes {
		shape := "oval"
		if n.Group {
			shape = "box"
		}
		fmt.Fprintf(b, "    %s [shape=%s]\n", quoteDOT(n.ID), shape)
	}
	for _, e := range g.Edges {
		fmt.Fprintf(b, "    %s -> %s\n", quoteDOT(e.From), quoteDOT(e.To))
	}
	fmt.Fprintln(b, "}")
	return b.Flush()
}

// quoteDOT writes an id, which may be any text.
func quoteDOT(id string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(id) + `"`
}
