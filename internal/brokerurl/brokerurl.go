// Package brokerurl reads broker and backend URLs the way kombu does, failover lists included, and takes passwords out
// of them before anybody sees them.
package brokerurl

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// URL is one broker or backend URL. User, Password, Host and Path are percent-decoded; an invalid escape is kept as
// it stands, as Python keeps it, because passwords hold bare "%" often enough.
type URL struct {
	Scheme   string // lower case, "+" included: "redis+socket"
	User     string
	Password string
	Host     string // lower case; IPv6 without its brackets; empty: the driver's default
	Port     int    // 0: the driver's default
	// Path is what follows the first slash: a virtual host, a database number. So amqp://h// and amqp://h/%2f both
	// have "/", amqp://h and amqp://h/ have "".
	Path  string
	Query url.Values // nil when there is none
	Raw   string     // as given, password and all: not for eyes
}

// Parse reads a URL or a failover list of URLs separated by ";". Later entries may be a bare host[:port], as in kombu:
// they take everything else from the first.
//
// kombu users carry passwords with unencoded "#", "?", "/", "@" or ";". Where the text has only one sensible reading
// they are accepted; where kombu itself reads it in another way, kombu's reading stands. Errors name the faulty part
// and never show a password.
func Parse(s string) ([]URL, error) {
	entries := split(strings.TrimSpace(s))
	urls := make([]URL, 0, len(entries))
	for _, e := range entries {
		u, err := parseEntry(e, urls)
		if err != nil {
			return nil, fmt.Errorf("URL %s: %w", redactList(e), err)
		}
		urls = append(urls, u)
	}
	if len(urls) == 0 {
		return nil, errors.New("URL is empty")
	}
	return urls, nil
}

func parseEntry(e string, before []URL) (URL, error) {
	scheme, rest, ok := cutScheme(e)
	if ok {
		u, err := parseOne(scheme, rest)
		u.Raw = e
		return u, err
	}
	if len(before) == 0 {
		return URL{}, errors.New("no scheme; expected for example redis://localhost:6379/0")
	}
	u := before[0]
	host, port, err := splitHost(e)
	if err != nil {
		return URL{}, err
	}
	u.Host, u.Port, u.Raw = host, port, e
	return u, nil
}

// split cuts a failover list at ";". A piece with neither a scheme nor a place for credentials is a bare host; a piece
// without a scheme but with an "@" can only be the tail of a password with a ";" in it.
func split(s string) []string {
	pieces := strings.Split(s, ";")
	var out []string
	add := func(e string) {
		if e = strings.TrimSpace(e); e != "" {
			out = append(out, e)
		}
	}
	for len(pieces) > 0 {
		// One URL with a scheme and all that follows it up to the next one.
		group, credentialsEnd := 1, 1
		for ; group < len(pieces); group++ {
			if _, _, ok := cutScheme(pieces[group]); ok {
				break
			}
			if strings.Contains(pieces[group], "@") {
				credentialsEnd = group + 1
			}
		}
		add(strings.Join(pieces[:credentialsEnd], ";"))
		for _, host := range pieces[credentialsEnd:group] {
			add(host)
		}
		pieces = pieces[group:]
	}
	return out
}

// cutScheme splits "scheme://rest".
func cutScheme(s string) (scheme, rest string, ok bool) {
	s = strings.TrimSpace(s)
	scheme, rest, ok = strings.Cut(s, "://")
	if !ok || scheme == "" {
		return "", s, false
	}
	for i := range len(scheme) {
		if !isSchemeByte(scheme[i]) {
			return "", s, false
		}
	}
	return strings.ToLower(scheme), rest, true
}

func isSchemeByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '+' || c == '-' || c == '.'
}

// parseOne reads what follows "://": first as the standard says, and if that makes no sense with the last "@" as the
// end of the credentials.
func parseOne(scheme, rest string) (URL, error) {
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	at := strings.LastIndexByte(authority, '@')
	u, err := assemble(scheme, authority[:max(at, 0)], authority[at+1:], tail)
	if err == nil && !strayAt(scheme, tail) {
		return u, nil
	}
	last := strings.LastIndexByte(rest, '@')
	if last <= at {
		return u, err
	}
	credentials := rest[:last]
	authority, tail = rest[last+1:], ""
	if i := strings.IndexAny(authority, "/?#"); i >= 0 {
		authority, tail = authority[:i], authority[i:]
	}
	return assemble(scheme, credentials, authority, tail)
}

// strayAt reports an "@" behind the authority where none has a meaning, so that all before it must be a password: in a
// fragment, in the name of a query key, in a path that is a database number.
func strayAt(scheme, tail string) bool {
	tail, fragment, _ := strings.Cut(tail, "#")
	if strings.Contains(fragment, "@") {
		return true
	}
	path, query, _ := strings.Cut(tail, "?")
	for pair := range strings.SplitSeq(query, "&") {
		if key, _, _ := strings.Cut(pair, "="); strings.Contains(key, "@") {
			return true
		}
	}
	numeric := scheme == "redis" || scheme == "rediss" || scheme == "sentinel"
	return numeric && strings.Contains(path, "@")
}

func assemble(scheme, credentials, authority, tail string) (URL, error) {
	u := URL{Scheme: scheme}
	user, password, _ := strings.Cut(credentials, ":")
	u.User, u.Password = unescape(user), unescape(password)
	var err error
	if u.Host, u.Port, err = splitHost(authority); err != nil {
		return URL{}, err
	}
	tail, _, _ = strings.Cut(tail, "#")
	path, query, _ := strings.Cut(tail, "?")
	u.Path = unescape(strings.TrimPrefix(path, "/"))
	if query != "" {
		if u.Query, err = url.ParseQuery(query); err != nil {
			return URL{}, errors.New("query cannot be read; expected key=value pairs joined by \"&\"")
		}
	}
	return u, nil
}

// splitHost reads host, host:port, [v6] or [v6]:port. It does not quote what it refuses: it may be half a password.
func splitHost(s string) (host string, port int, err error) {
	portText := ""
	if inner, ok := strings.CutPrefix(s, "["); ok {
		var closed bool
		if host, portText, closed = strings.Cut(inner, "]"); !closed {
			return "", 0, errors.New("host has an unclosed \"[\"")
		}
		if portText != "" && portText[0] != ':' {
			return "", 0, errors.New("host has text after \"]\"")
		}
		portText = strings.TrimPrefix(portText, ":")
	} else {
		host, portText, _ = strings.Cut(s, ":")
	}
	if portText != "" {
		port, err = strconv.Atoi(portText)
		if err != nil || port < 0 || port > 65535 {
			return "", 0, errors.New("port is not a number from 0 to 65535" +
				" (a special character in the password must be percent-encoded)")
		}
	}
	host = unescape(host)
	if strings.ContainsAny(host, " \t\r\n<>\"") {
		return "", 0, errors.New("host has characters that no host name has")
	}
	return strings.ToLower(host), port, nil
}

// unescape is Python's unquote: it decodes valid escapes and leaves everything else, "+" too, alone.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b = append(b, byte(n))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}
