// Package redisconn opens Redis as kombu's users write it down: its URLs, its transport options, failover lists and
// Sentinel; and it says which errors are worth another try.
package redisconn

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gelery/gelery/internal/brokeroption"
	"github.com/gelery/gelery/internal/brokerurl"
)

// Schemes are the URL schemes Parse understands.
var Schemes = []string{"redis", "rediss", "redis+socket", "sentinel"}

const (
	defaultPort         = 6379
	defaultSentinelPort = 26379
)

// Config is how to reach one logical Redis: a server, a list of servers to try in order, or a master behind Sentinels.
type Config struct {
	urls     []brokerurl.URL
	network  string   // "tcp" or "unix"
	addrs    []string // servers, or Sentinels when master is set
	user     string
	password string
	db       int
	tls      *tls.Config // nil: plain

	master           string
	sentinelUser     string
	sentinelPassword string

	clientName     string
	maxConnections int
	socketTimeout  time.Duration
	connectTimeout time.Duration
	keepAlive      bool
}

// Parse reads a URL, or a ";" list of URLs, and kombu's transport options.
//
//	redis://user:password@host:6379/0    port 6379 and database 0 are the defaults
//	rediss://host/0                      TLS; see below
//	redis+socket:///run/redis.sock?virtual_host=3
//	redis://a/0;redis://b/0              tried in order whenever a connection is made
//	sentinel://s1:26379/0;sentinel://s2:26379/0   with the option master_name
//
// With rediss:// the certificate and the host name are verified unless ssl_cert_reqs=none says otherwise. kombu leaves
// verification off by default, with a warning; we do not. The query also takes ssl_ca_certs, ssl_certfile, ssl_keyfile
// and ssl_check_hostname; any other query key is an error, as it is in kombu.
//
// Options (kombu's broker_transport_options, nil values count as absent): master_name, sentinel_kwargs (username,
// password), username, password, client_name, max_connections, socket_timeout and socket_connect_timeout in seconds,
// socket_keepalive, and ssl (true, or a map of the ssl_* names above: kombu's broker_use_ssl). The options
// min_other_sentinels, retry_on_timeout, health_check_interval and socket_keepalive_options are accepted and have
// nothing to do here. Names in known are the caller's own and skipped; any other one is an error.
func Parse(url string, opts map[string]any, known ...string) (*Config, error) {
	urls, err := brokerurl.Parse(url)
	if err != nil {
		return nil, err
	}
	c := &Config{urls: urls, network: "tcp", keepAlive: true}
	if err := c.readURLs(); err != nil {
		return nil, err
	}
	if err := c.readOptions(opts, known); err != nil {
		return nil, err
	}
	if c.isSentinel() && c.master == "" {
		return nil, fmt.Errorf("%s: sentinel needs the transport option master_name", c.Redacted())
	}
	return c, nil
}

func (c *Config) isSentinel() bool { return c.urls[0].Scheme == "sentinel" }

// DB is the database number.
func (c *Config) DB() int { return c.db }

// Redacted is the URL as given, without passwords.
func (c *Config) Redacted() string {
	texts := make([]string, len(c.urls))
	for i, u := range c.urls {
		texts[i] = u.Redacted()
	}
	return strings.Join(texts, ";")
}

func (c *Config) readURLs() error {
	first := c.urls[0]
	for i, u := range c.urls {
		if !slices.Contains(Schemes, u.Scheme) {
			return fmt.Errorf("%s: scheme %q is not Redis; known: %s", u.Redacted(), u.Scheme, strings.Join(Schemes, ", "))
		}
		if u.Scheme != first.Scheme {
			return fmt.Errorf("%s: the URLs of a failover list must share one scheme", c.Redacted())
		}
		db, err := database(u)
		if err != nil {
			return fmt.Errorf("%s: %w", u.Redacted(), err)
		}
		port := defaultPort
		switch u.Scheme {
		case "redis+socket":
			if len(c.urls) > 1 {
				return fmt.Errorf("%s: a unix socket cannot be part of a failover list", c.Redacted())
			}
			if u.Path == "" {
				return fmt.Errorf("%s: no path of a socket", u.Redacted())
			}
			c.network, c.addrs = "unix", []string{"/" + u.Path}
		case "sentinel":
			// As in kombu, database and credentials come from the first URL, the others only name Sentinels.
			port = defaultSentinelPort
		default:
			if i > 0 && (db != c.db || u.User != first.User || u.Password != first.Password) {
				return fmt.Errorf("%s: the URLs of a failover list must share database and credentials", c.Redacted())
			}
		}
		if i == 0 {
			c.db, c.user, c.password = db, u.User, u.Password
		}
		if c.network == "tcp" {
			c.addrs = append(c.addrs, address(u, port))
		}
	}
	return c.readQuery(first)
}

func address(u brokerurl.URL, port int) string {
	host := u.Host
	if host == "" {
		host = "127.0.0.1"
	}
	if u.Port != 0 {
		port = u.Port
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// database reads the number from the path, or from virtual_host for sockets, whose path is the socket.
func database(u brokerurl.URL) (int, error) {
	text := strings.Trim(u.Path, "/")
	if u.Scheme == "redis+socket" {
		text = u.Query.Get("virtual_host")
	}
	if text == "" {
		return 0, nil
	}
	db, err := strconv.Atoi(text)
	if err != nil || db < 0 {
		return 0, fmt.Errorf("database %q is not a number, expected for example /0", text)
	}
	return db, nil
}

// readQuery takes the TLS settings out of the first URL's query and refuses whatever else is there.
func (c *Config) readQuery(u brokerurl.URL) error {
	known := brokeroption.TLSNames
	if u.Scheme == "redis+socket" {
		known = []string{"virtual_host"}
	}
	ssl := map[string]any{}
	for key, values := range u.Query {
		if !slices.Contains(known, key) {
			return fmt.Errorf("%s: query key %q is unknown; known: %s (other settings are transport options)",
				u.Redacted(), key, strings.Join(known, ", "))
		}
		ssl[key] = values[len(values)-1]
	}
	secure := u.Scheme == "rediss"
	if u.Scheme == "redis+socket" || !secure && len(ssl) == 0 {
		return nil
	}
	var err error
	if c.tls, err = brokeroption.TLS(ssl); err != nil {
		return fmt.Errorf("%s: %w", u.Redacted(), err)
	}
	return nil
}
