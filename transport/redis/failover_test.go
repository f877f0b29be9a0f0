package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

// TestSentinelFailover kills the master under a producer and a consumer that know only the sentinel.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	master := testservice.StartRedis(t)
	host, port, _ := strings.Cut(master.Addr, ":")
	replica := testservice.StartRedis(t, "--replicaof", host+" "+port)
	sentinel := testservice.StartSentinel(t, "mymaster", master)
	o := map[string]any{"master_name": "mymaster"}
	tr := dial(t, "sentinel://"+sentinel.Addr+"/0", o)
	c := consume(t, tr, "q")
	publish(t, tr, publication("q", "before", 0))
	receive(t, c, 1)
	waitForReplica(t, replica.URL, "before")
	master.Kill()
	// Both sides wait through the failover; nothing is asked of the caller.
	start := time.Now()
	publish(t, tr, publication("q", "after", 0))
	ds := receive(t, c, 1)
	if ds[0].Message.Headers.ID != "after" {
		t.Errorf("received %s", ds[0].Message.Headers.ID)
	}
	t.Logf("writing again %v after the master was killed", time.Since(start))
}

// waitForReplica returns when the replica knows the sentinel's master well enough to replace it: it holds the data.
func waitForReplica(t *testing.T, url, id string) {
	t.Helper()
	rdb := client(t, url)
	for ctx := deadline(t); ctx.Err() == nil; {
		if all := rdb.HVals(ctx, "unacked").Val(); len(all) == 1 && strings.Contains(all[0], id) {
			return
		}
	}
	t.Fatal("the replica did not catch up")
}

// TestReadOnlyIsWaitedOut turns the server into a replica for a moment, as a failover behind one address does.
func TestReadOnlyIsWaitedOut(t *testing.T) {
	t.Parallel()
	server := testservice.StartRedis(t)
	rdb := client(t, server.URL)
	c := consume(t, dial(t, server.URL, nil), "q")
	publish(t, c.t, publication("q", "before", 0))
	if err := rdb.Do(t.Context(), "REPLICAOF", "127.0.0.1", "1").Err(); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() { sent <- c.t.Publish(deadline(t), []transport.Publication{publication("q", "during", 0)}) }()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if ds, err := c.Receive(ctx, 1); err == nil {
		t.Fatalf("received %v from a read-only server", ds)
	}
	if err := rdb.Do(t.Context(), "REPLICAOF", "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Errorf("publish through the failover: %v", err)
	}
	receive(t, c, 2)
}

// TestRefusalsOfAStartingServer lets a fake answer what a real server answers while it loads, or cannot save.
func TestRefusalsOfAStartingServer(t *testing.T) {
	t.Parallel()
	fake := miniredis.RunT(t)
	url := "redis://" + fake.Addr() + "/0"
	c := consume(t, dial(t, url, nil), "q")
	for _, refusal := range []string{"LOADING Redis is loading the dataset in memory", "MASTERDOWN Link with MASTER is down",
		"READONLY You can't write against a read only replica."} {
		fake.SetError(refusal)
		sent := make(chan error, 1)
		go func() { sent <- c.t.Publish(deadline(t), []transport.Publication{publication("q", refusal, 0)}) }()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if ds, err := c.Receive(ctx, 1); err == nil {
			t.Fatalf("%s: received %v", refusal, ds)
		}
		cancel()
		fake.SetError("")
		if err := <-sent; err != nil {
			t.Errorf("%s: publish: %v", refusal, err)
		}
		if got := fmt.Sprint(receive(t, c, 1)[0].Message.Headers.ID); got != refusal {
			t.Errorf("received %s", got)
		}
	}
	fake.SetError("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.")
	err := c.t.Publish(deadline(t), []transport.Publication{publication("q", "x", 0)})
	if !errors.Is(err, transport.ErrBrokerFull) {
		t.Errorf("publish to a server that cannot save: %v; expected ErrBrokerFull", err)
	}
	fake.SetError("")
	publish(t, c.t, publication("q", "y", 0))
	receive(t, c, 1)
}
