package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// rounds is how often a cost that varies is measured. The table shows the median and the worst.
const rounds = 9

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures each size in turn, tells w2 what it is doing, and writes the table to w.
func run(ctx context.Context, args []string, w, w2 io.Writer) error {
	if len(args) < 2 {
		return fmt.Errorf("want the path of rqlited and sizes in MiB, not %q", args)
	}
	binary, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	var t table
	for _, arg := range args[1:] {
		size, err := strconv.Atoi(arg)
		if err != nil || size < minSize || size > maxSize {
			return fmt.Errorf("size %q: want %d to %d MiB", arg, minSize, maxSize)
		}
		t.column(arg + " MiB")
		progress := func(what string) { fmt.Fprintf(w2, "bench: %d MiB: %s\n", size, what) }
		if err := inScratch(func(dir string) error { return benchEngine(ctx, dir, size, &t, progress) }); err != nil {
			return fmt.Errorf("%d MiB: %w", size, err)
		}
		if err := inScratch(func(dir string) error { return benchCluster(ctx, binary, dir, size, &t, progress) }); err != nil {
			return fmt.Errorf("%d MiB: %w", size, err)
		}
	}
	if err := t.print(w); err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, "¹ with an election timeout of 20 ms instead of 1 s, so that the rest can be seen")
	return err
}

// inScratch runs act with an empty directory that is removed afterwards.
func inScratch(act func(dir string) error) error {
	dir, err := os.MkdirTemp("", "rqlited-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // what stays behind after an error of the disk is temporary anyway
	return act(dir)
}
