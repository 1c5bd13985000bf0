#!/usr/bin/env bash
# Says what a Supabase project lacks to be an office, and what it opens too far. Changes nothing.
#
#   scripts/check-supabase.sh --db postgresql://…                       the schema, by SQL
#   scripts/check-supabase.sh --url https://….supabase.co --key sb_publishable_…    what a stranger gets, by HTTP
#
# Both may be given at once. Ends with 1 when there is something to put right.
source "$(dirname "$0")/say.sh"

db='' url='' key=''
while [ $# -gt 0 ]; do
    case $1 in
    --db) db=${2:-} ;;
    --url) url=${2:-} ;;
    --key) key=${2:-} ;;
    *) fail "check-supabase: unknown option \`$1\`" "use --db URL, or --url URL --key PUBLISHABLE_KEY" ;;
    esac
    shift $(($# > 1 ? 2 : 1))
done
[ -n "$db$url" ] || fail 'check-supabase: nothing to check' 'use --db URL, or --url URL --key PUBLISHABLE_KEY'
faults=0
fault() {
    echo "fault: $1"
    echo "       $2"
    faults=$((faults + 1))
}
note() {
    echo "note:  $1"
    echo "       $2"
}

if [ -n "$db" ]; then
    command -v psql >/dev/null || fail 'check-supabase: psql is not installed' 'install the PostgreSQL client'
    # psql reads the migrations itself: as an argument they would be too long one day.
    rows=$({
        echo 'set search_path = public;'
        echo '\set migrations `cat migrations/supabase/*.sql`'
        cat scripts/check-supabase.sql
    } | PGCONNECT_TIMEOUT=15 psql "$db" -X -q -A -t -F $'\x1f' -v ON_ERROR_STOP=1 -f -) || fail "check-supabase: the database did not answer" \
        'see above; Supabase: Project → Connect → Session pooler gives a URL that works from everywhere'
    while IFS=$'\x1f' read -r level what remedy; do
        [ -n "$level" ] || continue
        if [ "$level" = fault ]; then fault "$what" "$remedy"; else note "$what" "$remedy"; fi
    done <<<"$rows"
fi

# The status of an answer to a stranger: `ask METHOD PATH [BODY]`; 000 when there is none.
ask() {
    curl -s -o /dev/null -m 20 -w '%{http_code}' -X "$1" "${url%/}$2" -H "apikey: $key" \
        -H 'content-type: application/json' ${3:+-d "$3"} || true
}
if [ -n "$url" ]; then
    [ -n "$key" ] || fail 'check-supabase: no key' 'give the publishable key with --key'
    case $key in sb_secret_*) fail 'check-supabase: this is a secret key' 'give the publishable one: what a stranger gets is checked' ;; esac
    settings=$(curl -s -m 20 "${url%/}/auth/v1/settings" -H "apikey: $key" || true)
    case $settings in
    *'"disable_signup"'*) ;;
    *) fail "check-supabase: $url does not answer as a Supabase project" "it said: ${settings:0:200}" ;;
    esac
    case ${settings// /} in *'"disable_signup":false'*)
        note 'anybody may make an account' 'Authentication → Sign In / Providers: switch sign-ups off (an account alone opens no office)'
        ;;
    esac
    case ${settings// /} in *'"anonymous_users":true'*)
        note 'anybody may sign in anonymously' 'Authentication → Sign In / Providers: switch it off (it opens no office)'
        ;;
    esac
    for table in offices office_members agents clients sessions agent_commands agent_command_results session_asks; do
        case $(ask GET "/rest/v1/$table?select=*&limit=1") in
        401 | 403) ;;
        404) fault "table $table is not served" 'apply migrations/supabase; Settings → API → Exposed schemas: public' ;;
        *) fault "a stranger may read $table" 'apply migrations/supabase again' ;;
        esac
    done
    case $(ask POST /rest/v1/rpc/create_office '{"p_name":"x"}') in
    401 | 403) ;;
    404) fault 'function create_office is not served' 'apply migrations/supabase' ;;
    *) fault 'a stranger may call create_office' 'apply migrations/supabase again' ;;
    esac
    note 'whether public channels are off cannot be asked' 'Realtime → Settings: "Allow public access" must be off'
fi
if [ "$faults" -gt 0 ]; then
    echo "$faults to put right"
    exit 1
fi
echo 'all is well'
