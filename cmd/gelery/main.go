// Command gelery is the stock command: everything but tasks of one's own, which a binary with cli.Main(mux) has too.
package main

import "github.com/gelery/gelery/cli"

func main() { cli.Main(nil) }
