package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	os.Exit(run(os.Args[1:], os.Environ(), os.Stderr, signals))
}

// run does what the command line and the environment ask for until it is done or a signal arrives, and
// returns the exit code. All that it has to say goes to w.
func run(args, env []string, w io.Writer, signals <-chan os.Signal) int {
	s, err := parse(args, env, w)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return 2
	}
	if err != nil {
		fmt.Fprintln(w, err)
		return 1
	}
	if s.showVersion {
		fmt.Fprintln(w, versionLine())
		return 0
	}
	log := s.log.logger(w)
	for _, n := range s.notes {
		log.Log(context.Background(), n.level, n.msg, n.attrs...)
	}
	ctx, stop := watch(log, signals)
	defer stop()
	if err := serve(ctx, s, log); err != nil {
		log.Error("node failed", "err", err)
		return 1
	}
	log.Info("node stopped")
	return 0
}

// serve runs a node until ctx ends, with the profiles that were asked for around it.
func serve(ctx context.Context, s settings, log *slog.Logger) error {
	p, err := s.profiles.start()
	if err != nil {
		return err
	}
	return errors.Join(newNode(s, log).run(ctx), p.stop())
}

// watch returns a context that the first signal ends. Further ones are noted and change nothing:
// the stop under way has deadlines of its own. The returned function ends the watching.
func watch(log *slog.Logger, signals <-chan os.Signal) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case sig := <-signals:
				if ctx.Err() != nil {
					log.Warn("signal ignored, the node is stopping", "signal", sig.String())
					continue
				}
				log.Info("signal received", "signal", sig.String())
				cancel()
			case <-done:
				return
			}
		}
	})
	return ctx, func() {
		close(done)
		wg.Wait()
		cancel()
	}
}
