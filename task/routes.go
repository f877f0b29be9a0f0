package task

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/gelery/gelery/internal/fnmatch"
	"github.com/gelery/gelery/transport"
)

// Route sends tasks to a queue by their name. Exactly one of Task, Regexp and Func says which tasks; Options says where
// to and with what, as if each call had given them:
//
//	Routes: []task.Route{
//		{Task: "feed.tasks.import", Options: []task.Option{task.Queue("feeds")}},
//		{Task: "web.*", Options: []task.Option{task.Queue("web"), task.Priority(3)}},
//	}
//
// The list means what a list of Celery's task_routes means: between two functions, exact names are looked up first, then
// patterns in their order; the first match ends the search. As in Celery, options of the call and those of the task's
// definition win over a route.
type Route struct {
	// Task is a task's name, or with a "*" in it a pattern of Python's fnmatch: * any text, ? one character, [ab] and
	// [!ab] one of a set. Without a "*" it is an exact name, whatever else is in it.
	Task string
	// Regexp matches names from their beginning, as Python's re.match does.
	Regexp *regexp.Regexp
	// Func looks at the call itself. It returns false for calls that are not its own. It may be called concurrently.
	Func func(name string, args []any, kwargs map[string]any) ([]Option, bool)
	// Options are what the matched tasks get. Func does not use them.
	Options []Option
}

// router chooses destinations: Celery's app.amqp.router.
type router struct {
	tables       []routeTable
	queues       *queues
	defaultQueue string
}

// routeTable is a run of routes by name, or one function.
type routeTable struct {
	fn       func(string, []any, map[string]any) ([]Option, bool)
	exact    map[string]*Defaults
	patterns []patternRoute
}

type patternRoute struct {
	re *regexp.Regexp
	to *Defaults
}

// destination is where a message goes and what must exist before.
type destination struct {
	exchange string
	key      string
	declare  []transport.Queue
	delayed  bool // the broker can keep the message until its eta
	optional bool // nobody need get it
}

func newRouter(c *Config) (*router, error) {
	r := &router{queues: newQueues(c), defaultQueue: c.Queue}
	for i, route := range c.Routes {
		if err := r.add(route); err != nil {
			return nil, fmt.Errorf("config: Routes[%d]: %w", i, err)
		}
	}
	return r, nil
}

func (r *router) add(route Route) error {
	kinds := 0
	for _, set := range []bool{route.Task != "", route.Regexp != nil, route.Func != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		return fmt.Errorf("a route has one of Task, Regexp and Func, this has %d", kinds)
	}
	if route.Func != nil {
		r.tables = append(r.tables, routeTable{fn: route.Func})
		return nil
	}
	to, err := optionDefaults(route.Options)
	if err != nil {
		return err
	}
	if n := len(r.tables); n == 0 || r.tables[n-1].fn != nil {
		r.tables = append(r.tables, routeTable{exact: map[string]*Defaults{}})
	}
	t := &r.tables[len(r.tables)-1]
	switch {
	case route.Regexp != nil:
		t.patterns = append(t.patterns, patternRoute{route.Regexp, to})
	case strings.Contains(route.Task, "*"):
		re, err := fnmatch.Compile(route.Task)
		if err != nil {
			return err
		}
		t.patterns = append(t.patterns, patternRoute{re, to})
	default:
		if t.exact[route.Task] != nil {
			return fmt.Errorf("the task %q is routed twice", route.Task)
		}
		t.exact[route.Task] = to
	}
	return nil
}

func optionDefaults(opts []Option) (*Defaults, error) {
	s := &settings{}
	for _, o := range opts {
		if err := o.applySend(s); err != nil {
			return nil, fmt.Errorf("option %v: %w", o, err)
		}
	}
	return &s.Defaults, nil
}

// lookup finds the route of a call; nil if none matches.
func (r *router) lookup(name string, args []any, kwargs map[string]any) (*Defaults, error) {
	for i := range r.tables {
		t := &r.tables[i]
		if t.fn != nil {
			if opts, ok := t.fn(name, args, kwargs); ok {
				return optionDefaults(opts)
			}
			continue
		}
		if to := t.exact[name]; to != nil {
			return to, nil
		}
		for _, p := range t.patterns {
			if at := p.re.FindStringIndex(name); at != nil && at[0] == 0 {
				return p.to, nil
			}
		}
	}
	return nil, nil
}

// route completes the settings of a call by the routes and resolves the destination by Celery's rules.
func (r *router) route(s *settings, name string, args []any, kwargs map[string]any) (destination, error) {
	to, err := r.lookup(name, args, kwargs)
	if err != nil {
		return destination{}, fmt.Errorf("route: %w", err)
	}
	if to != nil {
		s.inherit(to)
	}
	return r.resolve(s)
}

// at is the destination of an address that is known already. A queue that must not be made is not declared.
func (r *router) at(exchange, key string) destination {
	d := destination{exchange: exchange, key: key, declare: r.queues.byExchange[exchange]}
	if exchange == "" {
		d.declare = nil
		if q, err := r.queues.find(key); err == nil {
			d.declare = []transport.Queue{q}
		}
	}
	return r.complete(d)
}

// resolve finds the destination that the settings name.
func (r *router) resolve(s *settings) (destination, error) {
	if s.Queue == "" && s.Exchange != "" {
		if s.RoutingKey == "" {
			// Celery would send it to the default queue and not say so.
			return destination{}, fmt.Errorf("exchange %q without a routing key or a queue", s.Exchange)
		}
		return r.at(s.Exchange, s.RoutingKey), nil
	}
	q, err := r.queues.find(either(s.Queue, r.defaultQueue))
	if err != nil {
		return destination{}, err
	}
	d := destination{declare: []transport.Queue{q}}
	if q.Unbound || q.ExchangeType == direct && (s.Exchange == "" || s.RoutingKey == "") {
		// The default exchange reaches every queue by its name; the queue's own binding plays no part.
		d.key = q.Name
	} else {
		d.exchange = either(s.Exchange, q.Exchange)
		d.key = either(s.RoutingKey, q.RoutingKey)
	}
	return r.complete(d), nil
}

// complete tells what the exchange of a destination means for the message.
func (r *router) complete(d destination) destination {
	d.delayed = r.queues.delayed && d.exchange == ""
	for i := range d.declare {
		if q := &d.declare[i]; q.Exchange == d.exchange {
			// Of an exchange that none of our queues is bound to, nobody has told the broker where to send on what was
			// delayed; and of direct queues it knows the names only.
			d.delayed = q.Delayed && q.ExchangeType != direct
			d.optional = q.Broadcast
			break // an exchange has one type
		}
	}
	return d
}
