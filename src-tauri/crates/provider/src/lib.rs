//! One module per agent program: start-up files, input rules, hooks, transcript, what a screen means
