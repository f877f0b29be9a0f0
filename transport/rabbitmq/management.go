package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	managementPort    = 15672
	managementTLSPort = 15671 // what RabbitMQ suggests; never plain HTTP for who asked for TLS: the password is in it

	managementDialTimeout = 2 * time.Second // no plugin behind a firewall: the numbers only it knows are not worth more
	managementTimeout     = 10 * time.Second
	managementLimit       = 32 << 20 // bytes of one answer
	managementPage        = 500      // queues in one answer
	managementSingles     = 20       // up to so many queues are asked for one by one
)

// management is RabbitMQ's HTTP API, the plugin rabbitmq_management: it tells what AMQP has no words for. A broker may
// be without it, and a user without a right to it: nothing but telling may depend on it.
type management struct {
	base     string // http://host:15672, without credentials
	user     string
	password string
	vhost    string
	client   *http.Client
}

// management is the API of the node we are connected to, or the one the option management_url names, whose credentials
// are the broker's unless it has its own.
func (t *rabbitTransport) management() (*management, error) {
	return newManagement(t.options.managementURL, t.endpoint())
}

func newManagement(given string, e endpoint) (*management, error) {
	m := &management{user: e.user, password: e.password, vhost: e.vhost}
	if given == "" {
		scheme, port := "http", managementPort
		if e.tls != nil {
			scheme, port = "https", managementTLSPort
		}
		m.base = scheme + "://" + net.JoinHostPort(e.host, strconv.Itoa(port))
	} else {
		u, err := url.Parse(given)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, errors.New("transport option management_url is no URL; expected for example http://host:15672")
		}
		if u.User != nil {
			m.user = u.User.Username()
			m.password, _ = u.User.Password()
		}
		m.base = u.Scheme + "://" + u.Host + strings.TrimSuffix(u.EscapedPath(), "/")
	}
	// No connection is kept: an operator asks a handful of questions, and nobody would close it.
	transport := &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: managementDialTimeout}).DialContext}
	if e.tls != nil {
		transport.TLSClientConfig = e.tls.Clone()
		transport.TLSClientConfig.ServerName = "" // of this URL, not of the broker's
	}
	m.client = &http.Client{Transport: transport, Timeout: managementTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return m, nil
}

// managementError is an answer other than yes.
type managementError struct {
	base, path string
	status     int
	text       string // what the plugin says
}

func (e *managementError) Error() string {
	return fmt.Sprintf("the management plugin at %s answers %d to %s: %s", e.base, e.status, e.path, e.text)
}

func (e *managementError) Unwrap() error {
	if e.status == http.StatusNotFound {
		return errNotFound
	}
	return nil
}

// get asks for a path below /api and decodes the answer. Of a *managementError's answer too: failed health checks say
// why in it.
func (m *management) get(ctx context.Context, path string, query url.Values, into any) error {
	full := m.base + "/api/" + path
	if len(query) > 0 {
		full += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, full, nil)
	if err != nil {
		return fmt.Errorf("the management plugin at %s cannot be asked for %s (%w)", m.base, path, err)
	}
	request.SetBasicAuth(m.user, m.password)
	response, err := m.client.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // its text is the whole URL again
		}
		return fmt.Errorf("the management plugin does not answer at %s (%w); enable rabbitmq_management, "+
			"or say where it is with the transport option management_url", m.base, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, managementLimit+1))
	switch {
	case err != nil:
		return fmt.Errorf("the management plugin at %s broke off its answer to %s (%w)", m.base, path, err)
	case len(body) > managementLimit:
		return fmt.Errorf("the management plugin at %s answers more than %[3]d MiB to %[2]s", m.base, path, managementLimit>>20)
	case response.StatusCode != http.StatusOK:
		_ = json.Unmarshal(body, into) // if it is JSON; the status says enough if not
		var told struct{ Reason string }
		_ = json.Unmarshal(body, &told)
		if told.Reason == "" {
			told.Reason = http.StatusText(response.StatusCode)
		}
		return &managementError{m.base, path, response.StatusCode, told.Reason}
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("what answers at %s to %s is not RabbitMQ (%w)", m.base, path, err)
	}
	return nil
}

// refusedBy tells whether the plugin answered and did not want this user.
func refusedBy(err error) bool {
	m, ok := errors.AsType[*managementError](err)
	return ok && (m.status == http.StatusUnauthorized || m.status == http.StatusForbidden)
}

// queueInfo is what the API tells of a queue. Counts are some seconds old, and nil as long as the queue is younger.
type queueInfo struct {
	Name       string
	Type       string // "classic", "quorum", "stream"; "" before RabbitMQ 3.8
	State      string // "running", "idle", "down", "crashed", "minority"; "" for a while after its declaration
	Durable    bool
	AutoDelete bool `json:"auto_delete"`
	Exclusive  bool
	Arguments  looseObject
	Policy     string
	Effective  looseObject `json:"effective_policy_definition"`
	Members    []string    // of a quorum queue
	Online     []string    // those of them that run
	Messages   *int64
	Unacked    *int64 `json:"messages_unacknowledged"`
	Backing    struct {
		Priorities map[string]int64 `json:"priority_lengths"`
	} `json:"backing_queue_status"`
}

const queueColumns = "name,type,state,durable,auto_delete,exclusive,arguments,policy,effective_policy_definition," +
	"members,online,messages,messages_unacknowledged,backing_queue_status.priority_lengths"

// looseObject is a JSON object. Erlang writes an empty one as a list in places.
type looseObject map[string]any

func (o *looseObject) UnmarshalJSON(text []byte) error {
	if len(text) == 0 || text[0] != '{' {
		*o = nil
		return nil
	}
	return json.Unmarshal(text, (*map[string]any)(o))
}

// setting is a queue's setting, from its arguments ("x-max-length") or its policy ("max-length"); nil if it has none.
func (q *queueInfo) setting(name string) any {
	if v, ok := q.Arguments["x-"+name]; ok {
		return v
	}
	return q.Effective[name]
}

// queue asks for one queue. One that does not exist is errNotFound.
func (m *management) queue(ctx context.Context, name string) (*queueInfo, error) {
	q := new(queueInfo)
	err := m.get(ctx, "queues/"+url.PathEscape(m.vhost)+"/"+url.PathEscape(name), url.Values{"columns": {queueColumns}}, q)
	if err != nil {
		return nil, err
	}
	return q, nil
}

// queues asks for all queues of the virtual host, page by page.
func (m *management) queues(ctx context.Context, each func(*queueInfo)) error {
	for page, pages := 1, 1; page <= pages; page++ {
		var answer struct {
			Items []queueInfo
			Pages int `json:"page_count"`
		}
		query := url.Values{"page": {strconv.Itoa(page)}, "page_size": {strconv.Itoa(managementPage)}, "columns": {queueColumns}}
		if err := m.get(ctx, "queues/"+url.PathEscape(m.vhost), query, &answer); err != nil {
			return err
		}
		for i := range answer.Items {
			each(&answer.Items[i])
		}
		pages = answer.Pages
	}
	return nil
}

// describe tells of those of the queues that exist, by name.
func (m *management) describe(ctx context.Context, names []string) (map[string]*queueInfo, error) {
	told := make(map[string]*queueInfo, len(names))
	if len(names) <= managementSingles {
		for _, name := range names {
			q, err := m.queue(ctx, name)
			switch {
			case err == nil:
				told[name] = q
			case !errors.Is(err, errNotFound):
				return nil, err
			}
		}
		return told, nil
	}
	wanted := make(map[string]bool, len(names))
	for _, name := range names {
		wanted[name] = true
	}
	err := m.queues(ctx, func(q *queueInfo) {
		if wanted[q.Name] {
			told[q.Name] = q
		}
	})
	if err != nil {
		return nil, err
	}
	return told, nil
}
