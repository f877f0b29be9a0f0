package interop

import (
	"fmt"
	"testing"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// TestTenThousandResults waits for 10,000 results with one subscription: in order, and with the error of
// the first that failed.
func TestTenThousandResults(t *testing.T) {
	t.Parallel()
	const n = 10_000
	url := testservice.Redis(t)
	ctx := within(t)
	client, other := connect(t, task.Config{Broker: url, Backend: url}), connect(t, task.Config{Broker: url, Backend: url})
	group := protocol.ResultTuple{ID: "group"}
	for i := range n {
		group.Children = append(group.Children, protocol.ResultTuple{ID: fmt.Sprint("t", i)})
	}
	r, err := client.ResultFromTuple(group)
	if err != nil {
		t.Fatal(err)
	}
	g, _ := task.GroupResultOf[int](r)
	joined := make(chan error, 1)
	go func() {
		values, err := g.Join(ctx)
		for i, v := range values {
			if v != i && err == nil {
				err = fmt.Errorf("place %d has %d", i, v)
			}
		}
		if len(values) != n && err == nil {
			err = fmt.Errorf("%d values", len(values))
		}
		joined <- err
	}()
	var batch []*protocol.ResultMeta
	for i := range n { // the last first
		batch = append(batch, &protocol.ResultMeta{TaskID: fmt.Sprint("t", n-1-i), Status: protocol.Success, Result: int64(n - 1 - i)})
	}
	if err := other.Backend().Store(ctx, batch); err != nil {
		t.Fatal(err)
	}
	if err := <-joined; err != nil {
		t.Error(err)
	}
	if count, err := g.CompletedCount(ctx); count != n || err != nil {
		t.Errorf("%d completed, %v", count, err)
	}
	if err := g.Forget(ctx); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{n / 2, n / 3} {
		batch[i] = &protocol.ResultMeta{TaskID: batch[i].TaskID, Status: protocol.Failure,
			Exception: &protocol.Exception{Type: "ValueError", Module: "builtins", Args: []any{batch[i].TaskID}}}
	}
	if err := other.Backend().Store(ctx, batch); err != nil {
		t.Fatal(err)
	}
	first := batch[n/2].TaskID // the batch is in reverse
	if _, err := g.Join(ctx); err == nil || err.Error() != "ValueError: "+first {
		t.Errorf("got %v, want that of %s", err, first)
	}
}
