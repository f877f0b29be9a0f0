package flower

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

const (
	// patience bounds each wait for something on a page. It is met in a second; a busy machine may need many.
	patience = time.Minute
	// look is how long a page is looked at before it is opened again.
	look = 3 * time.Second
)

// findBrowser returns the path of a browser, or ends the test.
func findBrowser(t *testing.T) string {
	t.Helper()
	names := []string{"chromium-headless-shell", "headless-shell", "chromium", "chromium-browser", "google-chrome"}
	if chosen := os.Getenv("CHROMIUM"); chosen != "" {
		names = []string{chosen}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("GELERY_TEST_PYTHON") == "required" {
		t.Fatalf("none of %v is here, but GELERY_TEST_PYTHON=required; run scripts/setup.sh", names)
	}
	t.Skipf("none of %v is here; scripts/setup.sh installs a browser", names)
	return ""
}

// browser is a browser with one page of Flower open.
type browser struct {
	ctx   context.Context
	base  string // http://127.0.0.1:port
	shots string // the folder of screenshots; "": there is none

	opened, taken int
}

// startBrowser starts a browser that ends with the test, which fails if a script on any page did.
func startBrowser(t *testing.T, path, base, folder string) *browser {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	ctx, end := chromedp.NewContext(ctx, chromedp.WithAllocatorOptions(chromedp.ExecPath(path), chromedp.WindowSize(1280, 1000),
		chromedp.Flag("force-prefers-reduced-motion", true))) // nothing is half faded in on a screenshot
	b := &browser{ctx: ctx, base: base}
	if root := os.Getenv("GELERY_TEST_SCREENSHOTS"); root != "" {
		b.shots = filepath.Join(root, folder)
		if err := os.MkdirAll(b.shots, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := chromedp.Do(ctx); err != nil { // starts it
		t.Fatalf("%s: %v", path, err)
	}
	console, heard := chromedp.Console(ctx), make(chan struct{})
	go func() {
		defer close(heard)
		for m, err := range console {
			if err != nil {
				return
			}
			// A page that Flower does not have yet is asked for again, and is no script's error.
			if m.Type == chromedp.ConsoleError && !strings.HasPrefix(m.Text, "Failed to load resource") {
				t.Errorf("a script of Flower says: %s", m.Text)
			}
		}
	}()
	t.Cleanup(func() {
		if t.Failed() {
			b.shoot(t, "failed")
		}
		end()
		<-heard
	})
	return b
}

// open opens a page of Flower, and loads it also if it is open already, perhaps at another place in it.
func (b *browser) open(t *testing.T, path string) {
	t.Helper()
	b.opened++
	path, place, _ := strings.Cut(path, "#")
	b.do(t, "open "+path, chromedp.Navigate(fmt.Sprintf("%s%s?opened=%d#%s", b.base, path, b.opened, place)))
}

// do runs actions in time.
func (b *browser) do(t *testing.T, what string, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// click clicks with the mouse on the element that a CSS selector finds, once that can be seen.
func (b *browser) click(t *testing.T, selector string) {
	t.Helper()
	b.do(t, "click "+selector, chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// enter writes into a field.
func (b *browser) enter(t *testing.T, selector, text string) {
	t.Helper()
	b.do(t, "enter "+text+" into "+selector, chromedp.SetValue(chromedp.CSS(selector), text, chromedp.NodeVisible))
}

// said is an expression of JavaScript: what the elements that a CSS selector finds say, whether they can be seen or not.
func said(selector string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(%q)].map(e => e.textContent).join(" ").replace(/\s+/g, " ")`, selector)
}

// text is what the elements that a CSS selector finds say.
func (b *browser) text(selector string) string {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	said, err := chromedp.Run(ctx, chromedp.Evaluate[string](said(selector)))
	return errors.Join(err, errors.New(said)).Error()
}

// sees waits until the elements that a CSS selector finds say each of the texts.
func (b *browser) sees(t *testing.T, selector string, texts ...string) {
	t.Helper()
	if !b.looks(patience, selector, texts...) {
		t.Fatalf("%s does not say %q: %s", selector, texts, b.text(selector))
	}
}

// looks waits for so long until the elements say each of the texts, and tells whether they do.
func (b *browser) looks(limit time.Duration, selector string, texts ...string) bool {
	ctx, cancel := context.WithTimeout(b.ctx, limit)
	defer cancel()
	conditions := []string{"true"}
	for _, text := range texts {
		conditions = append(conditions, fmt.Sprintf("said.includes(%q)", text))
	}
	expression := fmt.Sprintf("(() => { const said = %s; return %s })()", said(selector), strings.Join(conditions, " && "))
	for ctx.Err() == nil { // a page that makes way for another ends the question
		if _, err := chromedp.Run(ctx, chromedp.Poll[bool](expression, chromedp.WithPollingInterval(50*time.Millisecond))); err == nil {
			return true
		}
	}
	return false
}

// opens opens a page again and again until the elements of it say each of the texts: for pages that tell how things were when
// they were asked for.
func (b *browser) opens(t *testing.T, path, selector string, texts ...string) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		b.open(t, path)
		if b.looks(look, selector, texts...) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s, %s does not say %q: %s", path, selector, texts, b.text(selector))
		}
	}
}

// shoot keeps what the page looks like.
func (b *browser) shoot(t *testing.T, name string) {
	t.Helper()
	if b.shots == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	b.taken++
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	for err != nil && ctx.Err() == nil { // a page that is being laid out may have no width
		picture, err = chromedp.Run(ctx, chromedp.FullScreenshot(100))
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(b.shots, fmt.Sprintf("%02d-%s.png", b.taken, name)), picture, 0o644)
	}
	if err != nil {
		t.Errorf("screenshot of %s: %v", name, err)
	}
}
