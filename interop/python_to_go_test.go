package interop

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

// pythonToGo sends from Python to a Go worker. Python judges each result: it must be what a Python worker would have
// made of the same message.
func pythonToGo(t *testing.T, c Crossing, settings Settings) {
	driver := c.StartDriver(t, settings)
	for _, way := range c.ways() {
		for _, s := range sets {
			if s.carries(c.Version, way.serializer) {
				c.Cell(t, way.String()+" "+s.name, func(t *testing.T) { echoFromGo(t, driver, way, s.name) })
			}
		}
	}
	for _, way := range c.packings("gzip", "zlib", "bzip2", "lzma", "brotli", "zstd") {
		c.Cell(t, way.String(), func(t *testing.T) { echoFromGo(t, driver, way, "nested") })
	}
	c.Cell(t, "10 MB", func(t *testing.T) {
		echoFromGo(t, driver, variant{protocol: 2, serializer: "json", compression: "zlib"}, bigSet.name)
	})
	c.Cell(t, "keywords", func(t *testing.T) {
		got := run(t, driver, Command{Task: "dev.add", Kwargs: map[string]any{"x": 2, "y": 3}})
		if got.State != "SUCCESS" || string(got.Value) != "5" {
			t.Errorf("dev.add(x=2, y=3) gave %s %s, want SUCCESS 5", got.State, got.Got)
		}
	})
	pythonSeesGoErrors(t, c, driver)
	pythonSendsHeaders(t, c, driver, settings)
	c.Cell(t, "progress", func(t *testing.T) {
		got := run(t, driver, Command{Task: "dev.progress", Args: []any{3}, Record: true})
		if want := []string{"STARTED", "PROGRESS", "PROGRESS", "PROGRESS", "SUCCESS"}; !slices.Equal(got.States, want) {
			t.Errorf("states %v, then %s %s; want %v", got.States, got.State, got.Got, want)
		}
	})
	if c.Backend == "rpc" {
		resultsAreThePythonSendersOnly(t, c, driver, settings)
		return
	}
	c.Cell(t, "forget", func(t *testing.T) {
		id := run(t, driver, Command{Task: "dev.add", Args: []any{1, 1}}).ID
		if a := driver.Do(t, Command{Op: "forget", ID: id}); !a.OK {
			t.Fatalf("forget: %s", a.Error)
		}
		if a := driver.Do(t, Command{Op: "state", ID: id}); a.State != "PENDING" {
			t.Errorf("state after forget is %s, want PENDING", a.State)
		}
	})
}

// resultsAreThePythonSendersOnly checks what follows from rpc: nothing is stored, so nothing can be removed, and no other
// process learns of a result.
func resultsAreThePythonSendersOnly(t *testing.T, c Crossing, driver *Driver, settings Settings) {
	id := run(t, driver, Command{Task: "dev.add", Args: []any{1, 1}}).ID
	c.Cell(t, "nothing to forget", func(t *testing.T) {
		if a := driver.Do(t, Command{Op: "forget", ID: id}); a.OK || a.Kind != "NotImplementedError" {
			t.Errorf("forget is %v, %s: %s; want Python's own NotImplementedError", a.OK, a.Kind, a.Error)
		}
	})
	other := c.StartDriver(t, settings)
	c.Cell(t, "polled", func(t *testing.T) { // which reads the reply queue otherwise than waiting does
		sent := other.Do(t, Command{Op: "send", Task: "dev.add", Args: []any{2, 3}})
		eventually(t, "Python finds the result", func() bool {
			return other.Do(t, Command{Op: "state", ID: sent.ID}).State == "SUCCESS"
		})
	})
	c.Cell(t, "the result of another process", func(t *testing.T) {
		if a := other.Do(t, Command{Op: "state", ID: id}); a.State != "PENDING" {
			t.Errorf("another Python process sees %s %s, want PENDING", a.State, a.Got)
		}
		client := dial(t, settings, 2)
		if state, err := client.Result(id).State(within(t)); err != nil || state != protocol.Pending {
			t.Errorf("a Go process sees %s, %v, want PENDING", state, err)
		}
		if _, err := client.Result(id).Get(within(t)); !errors.Is(err, backends.ErrUnexpected) {
			t.Errorf("waiting in a Go process gives %v, want ErrUnexpected at once", err)
		}
	})
}

// pythonSeesGoErrors checks that a Go worker's failures arrive as exceptions of the class Python knows, with a traceback.
func pythonSeesGoErrors(t *testing.T, c Crossing, driver *Driver) {
	tests := []struct {
		name    string
		command Command
		class   string // a class the exception must be of
		text    string // part of its arguments
	}{
		{"error", Command{Task: "dev.fail", Args: []any{"out of paper"}}, "Exception", "out of paper"},
		{"missing argument", Command{Task: "dev.add", Args: []any{1}}, "TypeError", "missing 1 required positional argument: 'y'"},
		{"unexpected keyword", Command{Task: "dev.add", Args: []any{1, 2}, Kwargs: map[string]any{"z": 3}}, "TypeError", "unexpected keyword argument 'z'"},
		{"wrong type", Command{Task: "dev.add", Args: []any{1, "two"}}, "TypeError", "y"},
	}
	for _, tt := range tests {
		c.Cell(t, "failure: "+tt.name, func(t *testing.T) {
			got := run(t, driver, tt.command)
			if got.State != "FAILURE" || got.Exception == nil {
				t.Fatalf("state %s with %s, want FAILURE with an exception", got.State, got.Got)
			}
			if !slices.Contains(got.Exception.Bases, tt.class) {
				t.Errorf("exception %s is of %v, want %s among them", got.Got, got.Exception.Bases, tt.class)
			}
			if !strings.Contains(got.Got, tt.text) {
				t.Errorf("exception is %s, want %q in it", got.Got, tt.text)
			}
			if !strings.HasPrefix(got.Traceback, "Traceback (most recent call last):") {
				t.Errorf("traceback is %q, want one in Python's look", got.Traceback)
			}
		})
	}
}

// TestPickle sends pickled arguments to a Go worker: refused as Celery refuses what is not in accept_content, and read
// when the operator has said so.
func TestPickle(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, []Stack{RedisStack, RabbitMQRPCStack}, func(t *testing.T, c Crossing) {
		c.Direction = PythonToGo
		refusing := c.Open(t)
		reading := refusing
		refusing.Queue, reading.Queue = "refusing", "reading"
		StartGelery(t, refusing)
		StartGelery(t, reading, "--accept-content", "json,pickle")
		driver := c.StartDriver(t, refusing)
		pickled := func(queue string) Command {
			return Command{Task: "dev.add", Args: []any{2, 3}, Options: map[string]any{"serializer": "pickle", "queue": queue}}
		}

		c.Cell(t, "pickle refused", func(t *testing.T) {
			got := run(t, driver, pickled("refusing"))
			if got.State != "FAILURE" || got.Exception == nil || got.Exception.Type != "ContentDisallowed" {
				t.Errorf("%s %s, want FAILURE ContentDisallowed", got.State, got.Got)
			}
		})
		c.Cell(t, "the worker lives on after pickle", func(t *testing.T) {
			if got := run(t, driver, Command{Task: "dev.add", Args: []any{2, 3}}); string(got.Value) != "5" {
				t.Errorf("%s %s, want 5", got.State, got.Got)
			}
		})
		c.Cell(t, "pickle accepted", func(t *testing.T) {
			if got := run(t, driver, pickled("reading")); string(got.Value) != "5" {
				t.Errorf("%s %s, want 5", got.State, got.Got)
			}
		})
	})
}

// echoFromGo sends a set to dev.echo and lets Python judge what comes back.
func echoFromGo(t *testing.T, driver *Driver, way variant, set string) {
	t.Helper()
	options := map[string]any{"serializer": way.serializer}
	if way.compression != "" {
		options["compression"] = way.compression
	}
	sent := driver.Do(t, Command{Op: "send", Task: "dev.echo", Set: set, Options: options, Protocol: way.protocol})
	if !sent.OK {
		t.Fatalf("Python does not send it: %s: %s", sent.Kind, sent.Error)
	}
	got := driver.Do(t, Command{Op: "get", ID: sent.ID, Set: set, Via: way.serializer, Timeout: patience.Seconds()})
	switch {
	case !got.OK:
		t.Fatalf("%s: %s", got.Kind, got.Error)
	case got.State != "SUCCESS":
		t.Fatalf("%s %s\n%s", got.State, got.Got, got.Traceback)
	case !got.Equal:
		t.Errorf("got  %s\nwant %s", got.Got, got.Want)
	}
}

// run sends a task from Python and waits for its end.
func run(t *testing.T, driver *Driver, c Command) Answer {
	t.Helper()
	c.Op = "send"
	sent := driver.Do(t, c)
	if !sent.OK {
		t.Fatalf("send %s: %s: %s", c.Task, sent.Kind, sent.Error)
	}
	got := driver.Do(t, Command{Op: "get", ID: sent.ID, Timeout: patience.Seconds()})
	if !got.OK {
		t.Fatalf("result of %s: %s: %s", c.Task, got.Kind, got.Error)
	}
	return got
}
