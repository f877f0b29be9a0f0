// Package flower shows a cluster of a Go and a Python worker to an unmodified Flower and uses it as a person does: in a real
// browser without a window, by its links and buttons. What a button does is judged by what the Go worker does then.
//
// scripts/setup.sh installs Flower (.venv/monitoring) and the browser, which is looked for as chromium-headless-shell,
// headless-shell, chromium, chromium-browser or google-chrome; CHROMIUM names another. Without them the tests are skipped, or
// fail with GELERY_TEST_PYTHON=required. With GELERY_TEST_SCREENSHOTS=FOLDER each page that they see is kept there as a PNG,
// FOLDER/STACK/NUMBER-NAME.png.
package flower
