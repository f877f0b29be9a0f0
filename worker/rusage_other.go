//go:build !unix

package worker

func resourceUsage() any { return "N/A" }
