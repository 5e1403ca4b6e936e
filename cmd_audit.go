package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cardstile/cardstile/gateway/audit"
	"github.com/cardstile/cardstile/vault/keys"
)

func cmdAudit() *cobra.Command {
	cmd := group(&cobra.Command{Use: "audit", Short: "Look after the audit log"})
	var (
		key, passphrase, after, reach string
		anywhere                      bool
	)
	verify := &cobra.Command{
		Use: "verify FILE...", Short: "Check that no record was changed, removed, added or moved", Args: cobra.MinimumNArgs(1),
		Long: "Verify checks the chain of records through one or more files, oldest first. The key is the one of\n" +
			"use audit, or the file beside the log where none was configured.",
		RunE: func(cmd *cobra.Command, args []string) error {
			config := keys.Config{ID: "audit", Use: keys.UseAudit, File: key, PassphraseFile: passphrase}
			if passphrase != "" {
				config.Kind = keys.SealedKind(config.File)
			}
			k, err := keys.Load(config)
			if err != nil {
				return err
			}
			mac, err := k.MAC(audit.Label)
			if err != nil {
				return err
			}
			var options []audit.VerifyOption
			if anywhere {
				options = append(options, audit.Anywhere())
			}
			for _, anchor := range []struct {
				flag, text string
				option     func(audit.Position) audit.VerifyOption
			}{{"after", after, audit.After}, {"reach", reach, audit.Reach}} {
				if !cmd.Flags().Changed(anchor.flag) { // an empty one is no position: a script lost it
					continue
				}
				p, err := audit.ParsePosition(anchor.text)
				if err != nil {
					return fmt.Errorf("--%s: %w", anchor.flag, err)
				}
				options = append(options, anchor.option(p))
			}
			report, err := audit.VerifyFiles(args, mac, options...)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			for _, line := range remarks(report) {
				fmt.Fprintln(out, line)
			}
			if report.First == 0 { // a new file that nothing was written to yet, or a log that was emptied
				_, err = fmt.Fprintln(out, "no records: nothing is shown by that; --reach tells whether there were some")
				return err
			}
			_, err = fmt.Fprintf(out, "%d records of exchanges, from number %d: the chain is whole\nends at %s\n", report.Records, report.First, report.End)
			return err
		},
	}
	f := verify.Flags()
	f.StringVar(&key, "key", "", "key file of use audit")
	f.StringVar(&passphrase, "passphrase-file", "", "passphrase of a sealed key file")
	f.StringVar(&after, "after", "", "the position that the first record must follow, as an earlier run printed it")
	f.StringVar(&reach, "reach", "", "a position that the chain must pass or end at, as an earlier run printed it: shows a tail that was cut off")
	f.BoolVar(&anywhere, "anywhere", false, "accept files that do not begin at the beginning of the chain")
	verify.MarkFlagRequired("key") //nolint:errcheck // the flag is three lines up
	cmd.AddCommand(verify)
	return cmd
}

// remarks are what an auditor will ask about in a chain that is whole.
func remarks(report audit.Report) []string {
	var lines []string
	running := len(report.Notes) > 0 && report.Notes[0].Seq > report.First // records of exchanges come before the first note
	for _, n := range report.Notes {
		said := ""
		switch n.Kind {
		case audit.NoteResumed, audit.NoteTorn, audit.NoteUnverified:
			said = string(n.Kind)
		case audit.NoteStart:
			if running {
				said = "start without a stop before it: a crash, or a cut"
			}
		}
		running = n.Kind != audit.NoteStop && (running || n.Kind == audit.NoteStart || n.Kind == audit.NoteContinue)
		if said != "" {
			lines = append(lines, fmt.Sprintf("note at record %d, %s: %s", n.Seq, n.Time.Format(time.RFC3339), said))
		}
	}
	return lines
}
