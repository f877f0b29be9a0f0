package rabbitmq

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gelery/gelery/internal/brokeroption"
	"github.com/gelery/gelery/internal/brokerurl"
)

// endpoint is one node of a failover list.
type endpoint struct {
	host           string
	port           int
	user, password string
	vhost          string
	tls            *tls.Config // nil: plain
}

func (e endpoint) address() string { return net.JoinHostPort(e.host, strconv.Itoa(e.port)) }

// options are what the URL and the transport options say. Names are those of kombu's pyamqp transport and of Celery's
// broker_ settings, but for management_url, which is ours.
type options struct {
	endpoints []endpoint
	url       string // redacted, for errors

	// shuffle tries the nodes in random order: broker_failover_strategy=shuffle. Default: in the order of the list.
	shuffle bool
	// heartbeat: a connection on which nothing was heard for two of these is dead. The server may ask for less.
	// Default 10 s; Celery's own 120 s is for event loops that a task can hold up.
	heartbeat time.Duration
	// connectTimeout bounds one attempt, handshakes included: broker_connection_timeout. Default 4 s.
	connectTimeout time.Duration
	// writeTimeout is how long the broker may take to accept bytes. Default 10 s.
	writeTimeout time.Duration
	// loginMethod is PLAIN or, with a client certificate, EXTERNAL: broker_login_method.
	loginMethod string
	// managementURL is where the management plugin answers. Empty: port 15672 of the node connected to.
	managementURL string
	// delayQueueType is the type of the queues of native delayed delivery:
	// broker_native_delayed_delivery_queue_type. Default quorum.
	delayQueueType string
	// watchInterval is how often a consumer makes sure that the broker still knows it. Default 15 s.
	watchInterval time.Duration
	// delayFrom is the least time from its eta from which a task is given back to the broker, by way of the delay queues,
	// and not held. A message crosses 28 exchanges there and, for each binary digit of its delay, one quorum queue: RabbitMQ
	// does that some hundred to two thousand times a second. Held, it costs a worker a kilobyte. Default 10 s.
	delayFrom time.Duration
}

// ignoredOptions are kombu's, without a meaning here: confirms are always on, and we retry until the context ends.
var ignoredOptions = []string{
	"confirm_publish", "client_properties", "max_retries", "interval_start", "interval_step", "interval_max", "read_timeout",
	"socket_settings", "fail_on_missing_exchange",
}

// readers read the transport options, and those of them that kombu takes from the query of a URL.
func (o *options) readers() map[string]func(any) error {
	text := func(dst *string, allowed ...string) func(any) error {
		return func(v any) error {
			if err := brokeroption.ReadText(dst, v); err != nil {
				return err
			}
			if len(allowed) > 0 && !slices.Contains(allowed, *dst) {
				return fmt.Errorf("%q is not one of %s", *dst, strings.Join(allowed, ", "))
			}
			return nil
		}
	}
	seconds := func(dst *time.Duration) func(any) error {
		return func(v any) error {
			if s, ok := v.(string); ok { // from a query
				n, err := strconv.ParseFloat(s, 64)
				if err != nil {
					return fmt.Errorf("%q is not a number of seconds", s)
				}
				v = n
			}
			return brokeroption.ReadSeconds(dst, v)
		}
	}
	return map[string]func(any) error{
		"heartbeat":       seconds(&o.heartbeat),
		"connect_timeout": seconds(&o.connectTimeout),
		"write_timeout":   seconds(&o.writeTimeout),
		"login_method":    text(&o.loginMethod, "PLAIN", "EXTERNAL"),
		"management_url":  text(&o.managementURL),
		"failover_strategy": func(v any) error {
			var s string
			err := text(&s, "round-robin", "shuffle")(v)
			o.shuffle = s == "shuffle"
			return err
		},
		"native_delayed_delivery_queue_type": text(&o.delayQueueType, "quorum", "classic"),
		"gelery_watch_interval":              seconds(&o.watchInterval),
		"gelery_delay_from":                  seconds(&o.delayFrom),
	}
}

// parse reads a URL or failover list and the transport options.
func parse(url string, transportOptions map[string]any) (*options, error) {
	o := &options{url: brokerurl.Redact(url), heartbeat: 10 * time.Second, connectTimeout: 4 * time.Second,
		writeTimeout: 10 * time.Second, loginMethod: "PLAIN", delayQueueType: "quorum", watchInterval: 15 * time.Second,
		delayFrom: 10 * time.Second}
	urls, err := brokerurl.Parse(url)
	if err != nil {
		return nil, err
	}
	readers := o.readers()
	var ssl any
	for name, v := range transportOptions {
		read := readers[name]
		switch {
		case v == nil, slices.Contains(ignoredOptions, name):
		case name == "ssl":
			ssl = v
		case read == nil:
			known := append(slices.Collect(maps.Keys(readers)), append(ignoredOptions, "ssl")...)
			slices.Sort(known)
			return nil, fmt.Errorf("transport option %q is unknown for RabbitMQ; known: %s", name, strings.Join(known, ", "))
		default:
			if err := read(v); err != nil {
				return nil, fmt.Errorf("transport option %q: %w", name, err)
			}
		}
	}
	for _, u := range urls {
		e, err := o.endpoint(u, readers, ssl)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", u.Redacted(), err)
		}
		o.endpoints = append(o.endpoints, e)
	}
	return o, nil
}

// endpoint reads one URL of the list. Celery's defaults: guest, guest, localhost, virtual host "/".
func (o *options) endpoint(u brokerurl.URL, readers map[string]func(any) error, ssl any) (endpoint, error) {
	e := endpoint{host: u.Host, port: u.Port, user: u.User, password: u.Password, vhost: u.Path}
	settings := map[string]any{}
	secure := u.Scheme == "amqps"
	for name, values := range u.Query {
		v := values[len(values)-1]
		switch read := readers[name]; {
		case name == "ssl":
			if err := brokeroption.ReadBool(&secure, v); err != nil {
				return e, fmt.Errorf("ssl: %w", err)
			}
		case slices.Contains(brokeroption.TLSNames, name):
			settings[name] = v
		case name == "management_url" || read == nil:
			return e, fmt.Errorf("query parameter %q is unknown; options that are not of the connection go into the transport options", name)
		default:
			if err := read(v); err != nil {
				return e, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	switch ssl := ssl.(type) {
	case nil:
	case map[string]any: // broker_use_ssl: py-amqp's names have no ssl_ before them
		secure = true
		for name, v := range ssl {
			if !strings.HasPrefix(name, "ssl_") {
				name = "ssl_" + name
			}
			settings[name] = v
		}
	default:
		if err := brokeroption.ReadBool(&secure, ssl); err != nil {
			return e, fmt.Errorf("transport option \"ssl\": %w", err)
		}
	}
	if e.host == "" {
		e.host = "localhost"
	}
	if e.user == "" {
		e.user = "guest"
		if e.password == "" {
			e.password = "guest"
		}
	}
	if e.vhost == "" {
		e.vhost = "/"
	}
	if !secure {
		if len(settings) > 0 {
			return e, fmt.Errorf("ssl settings for a connection without TLS; use amqps://")
		}
		if e.port == 0 {
			e.port = 5672
		}
		return e, nil
	}
	if e.port == 0 {
		e.port = 5671
	}
	config, err := brokeroption.TLS(settings)
	if err != nil {
		return e, err
	}
	config.ServerName = e.host
	e.tls = config
	return e, nil
}
