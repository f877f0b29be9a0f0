package brokerurl

import (
	"net"
	"net/url"
	"strconv"
	"strings"
)

const stars = "***"

// Redacted is the URL with its password, if it has one, replaced by "***": fit for logs and errors.
func (u URL) Redacted() string {
	var b strings.Builder
	b.WriteString(u.Scheme)
	b.WriteString("://")
	if u.User != "" || u.Password != "" {
		b.WriteString(url.PathEscape(u.User))
		if u.Password != "" {
			b.WriteString(":" + stars)
		}
		b.WriteByte('@')
	}
	switch {
	case u.Port != 0:
		b.WriteString(net.JoinHostPort(u.Host, strconv.Itoa(u.Port)))
	case strings.Contains(u.Host, ":"):
		b.WriteString("[" + u.Host + "]")
	default:
		b.WriteString(u.Host)
	}
	if u.Path != "" {
		b.WriteString("/" + u.Path)
	}
	if len(u.Query) > 0 {
		b.WriteString("?" + redactQuery(u.Query.Encode()))
	}
	return b.String()
}

// Redact replaces every password in a URL, a failover list, or any text with URLs in it by "***". It works on texts
// that Parse refuses, and when in doubt it hides more rather than less.
func Redact(s string) string {
	if _, _, ok := cutScheme(s); ok {
		return redactList(s)
	}
	var b strings.Builder
	for {
		i := strings.Index(s, "://")
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		start := i
		for start > 0 && isSchemeByte(s[start-1]) {
			start--
		}
		end := strings.IndexAny(s[i:], " \t\r\n\"'")
		if end < 0 {
			end = len(s)
		} else {
			end += i
		}
		b.WriteString(s[:start])
		b.WriteString(redactList(s[start:end]))
		s = s[end:]
	}
}

func redactList(s string) string {
	entries := split(s)
	lost := false // the entry before ended in a password, so a bare host may be the rest of it
	for i, e := range entries {
		if _, _, ok := cutScheme(e); !ok && lost {
			entries[i] = stars
			continue
		}
		entries[i] = redactEntry(e)
		lost = strings.HasSuffix(entries[i], ":"+stars)
	}
	return strings.Join(entries, ";")
}

func redactEntry(e string) string {
	scheme, rest, ok := strings.Cut(e, "://")
	prefix := scheme + "://"
	if !ok {
		prefix, rest = "", e
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		user, password, _ := strings.Cut(rest[:at], ":")
		if strings.ContainsAny(user, "/?#") {
			// The "@" may stand in a path, but a password may hide before it as well: show the host alone.
			host := user[:strings.IndexAny(user, "/?#")]
			return prefix + host + "/" + stars + "@" + redactTail(rest[at+1:])
		}
		if password != "" {
			user += ":" + stars
		}
		return prefix + user + "@" + redactTail(rest[at+1:])
	}
	// No "@" at all: a colon that no port follows starts most likely a password whose host got lost.
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	if _, _, err := splitHost(authority); err != nil {
		user, _, _ := strings.Cut(authority, ":")
		return prefix + user + ":" + stars
	}
	return prefix + authority + redactTail(tail)
}

func redactTail(s string) string {
	head, query, ok := strings.Cut(s, "?")
	if !ok {
		return s
	}
	return head + "?" + redactQuery(query)
}

func redactQuery(q string) string {
	pairs := strings.Split(q, "&")
	for i, p := range pairs {
		key, value, ok := strings.Cut(p, "=")
		if ok && value != "" && secretName(key) {
			pairs[i] = key + "=" + stars
		}
	}
	return strings.Join(pairs, "&")
}

func secretName(key string) bool {
	key = strings.ToLower(key)
	for _, s := range []string{"password", "passwd", "secret", "token"} {
		if strings.Contains(key, s) {
			return true
		}
	}
	return false
}
