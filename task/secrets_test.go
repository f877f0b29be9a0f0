package task

import "testing"

func TestSecretsInReprs(t *testing.T) {
	t.Parallel()
	type login struct {
		User     string
		Password string
		PIN      string         `task:"pin,secret"`
		Token    string         `task:"token,kwonly"`
		Rest     map[string]any `task:",remain"`
	}
	logs := Define[login, NoResult]("login")
	for name, tt := range map[string]struct {
		names        []string
		args, kwargs string
	}{
		"by default": {nil, "('ann', '********', '********')", "{'pins': 1, 'token': '********'}"},
		"own names":  {[]string{"ins", "user"}, "('********', 'hush', '********')", "{'pins': '********', 'token': 'xyz'}"},
		"none":       {[]string{}, "('ann', 'hush', '********')", "{'pins': 1, 'token': 'xyz'}"},
	} {
		sees := func(next Publish) Publish { return next }
		for _, middleware := range [][]PublishMiddleware{nil, {sees}} {
			c, p := probeClient(t, Config{SecretNames: tt.names, Middleware: middleware})
			if _, err := logs.Send(t.Context(), c, login{"ann", "hush", "1234", "xyz", map[string]any{"pins": 1}}); err != nil {
				t.Fatal(err)
			}
			r, _ := p.last(t)
			if r.ArgsRepr != tt.args || r.KwargsRepr != tt.kwargs {
				t.Errorf("%s: %s %s", name, r.ArgsRepr, r.KwargsRepr)
			}
			if r.Args[1] != "hush" || r.Kwargs["token"] != "xyz" {
				t.Errorf("%s: the task gets %v %v", name, r.Args, r.Kwargs)
			}
		}
	}
}
