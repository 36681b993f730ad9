set client_min_messages = warning; -- no word about what is there already

create table if not exists greetings (
    language text primary key,
    words    text not null
);

insert into greetings values ('en', 'It all runs.') on conflict do nothing;
